"""An archive of the Java classes that Spark loads: with it, Spark starts in less time.

It is written once for an environment, by scripts/class_archive.py. Java ignores an archive of another Java or of other
jars (https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mission9.config import RunConfig
from mission9.errors import SetupError
from mission9.runners.java import archive_folder, archive_name
from mission9.runners.spark import spark_runner
from mission9.runners.spark_session import end_java, is_java_started
from mission9.storage.local.files import make_folder

_OPTIONS = "SPARK_SUBMIT_OPTS"  # of the Java of a session, and not of the one that starts it


def write_class_archive() -> Path:
    """Start Spark, have it carry a task out, and archive the classes that it has loaded.

    Raises:
        SetupError: Spark does not start, or has started in this process before, or Java writes no archive.
    """
    if is_java_started():
        raise SetupError("Spark has started in this process: write the archive from another, before it starts")
    make_folder(archive_folder())
    for old in archive_folder().glob("*.jsa"):
        old.unlink()  # Java writes none while it uses another
    before = os.environ.get(_OPTIONS, "")
    with tempfile.TemporaryDirectory(dir=archive_folder()) as folder:
        new = Path(folder) / "new"
        os.environ[_OPTIONS] = f"{before} -XX:ArchiveClassesAtExit={new} -Xlog:disable"
        try:
            with spark_runner(RunConfig(master="local[1]")) as runner:
                runner.map(_nothing, 2)
        finally:
            os.environ[_OPTIONS] = before
        end_java()
        if not new.exists():
            raise SetupError("Java wrote no archive of Spark's classes: see its output above")
        return new.rename(archive_folder() / archive_name(new))


def _nothing(_: int) -> bytes:
    return b""
