"""Archive the Java classes that Spark loads, so that it starts faster: BIN/python scripts/class_archive.py."""

from __future__ import annotations

import sys

from mission9.errors import SetupError
from mission9.runners.class_archive import write_class_archive

try:
    print(f"mission9: Spark starts faster with {write_class_archive()}")
except SetupError as error:
    sys.exit(f"mission9: {error}")
