"""`python -m mission9`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder, which may be an untrusted dataset

from mission9.cli import program

program()
