"""`python -m mission9`."""

import sys

from mission9.cli import main

sys.exit(main())
