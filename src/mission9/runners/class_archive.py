"""An archive of the Java classes that Spark loads: with it, Spark starts with about half of the CPU time.

It is written once for an environment, by scripts/class_archive.py. Java ignores an archive of another Java or of other
jars (https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from mission9.config import RunConfig
from mission9.errors import SetupError
from mission9.storage.local.files import make_folder


def class_archive() -> Path | None:
    """The archive of this environment, unless it is missing or cut short, with which Java would not start."""
    return next((file for file in _folder().glob("*.jsa") if file.name == _name(file)), None)


def java_options() -> tuple[str, ...]:
    """The options with which Java uses the archive, if there is one, and is silent if it cannot."""
    file = class_archive()
    # Java and Spark split these at spaces.
    is_usable = file is not None and not any(map(str.isspace, str(file)))
    return (f"-XX:SharedArchiveFile={file}", "-Xlog:disable") if is_usable else ()


def write_class_archive() -> Path:
    """Start Spark, have it carry a task out, and archive the classes that it has loaded.

    Raises:
        SetupError: Spark does not start, or Java writes no archive.
    """
    from pyspark import SparkContext

    from mission9.runners.spark import spark_runner

    make_folder(_folder())
    for old in _folder().glob("*.jsa"):
        old.unlink()  # Java writes none while it uses another
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        new = Path(folder) / "new"
        os.environ["SPARK_SUBMIT_OPTS"] = f"-XX:ArchiveClassesAtExit={new} -Xlog:disable"
        with spark_runner(RunConfig(master="local[1]")) as runner:
            runner.map(_nothing, 2)
        java = SparkContext._gateway.proc  # type: ignore[union-attr] # which `spark_runner` has started
        java.stdin.close()  # at which it ends
        java.wait()
        if not new.exists():
            raise SetupError("Java wrote no archive of Spark's classes: see its output above")
        return new.rename(_folder() / _name(new))


def _folder() -> Path:
    return Path(sys.prefix) / "share" / "mission9"


def _name(file: Path) -> str:
    return f"spark-{file.stat().st_size}.jsa"


def _nothing(_: int) -> bytes:
    return b""
