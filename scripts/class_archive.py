"""Archive the Java classes that Spark loads, so that it starts faster: BIN/python scripts/class_archive.py."""

from __future__ import annotations

from mission9.errors import SetupError
from mission9.runners.class_archive import write_class_archive

try:
    print(f"mission9: Spark starts faster with {write_class_archive()}")
except SetupError as error:
    print(f"mission9: Spark starts slower, without an archive of its classes: {error}")
