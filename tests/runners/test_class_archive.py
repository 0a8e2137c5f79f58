"""The archive of Java's classes: used where it is, and no reason to fail where it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mission9.errors import SetupError
from mission9.runners.class_archive import write_class_archive
from mission9.runners.java import class_archive, java_options


@pytest.mark.parametrize(("folder", "is_used"), [("environment", True), ("my environment", False)])
def test_java_is_told_of_an_archive_that_it_can_name(
    folder: str, is_used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / folder))
    assert java_options() == ()
    file = tmp_path / folder / "share" / "mission9" / "spark-7.jsa"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"archive")
    assert any(str(file) in option for option in java_options()) == is_used
    file.write_bytes(b"archiv")
    assert java_options() == ()


@pytest.mark.usefixtures("spark")
def test_it_is_not_written_by_a_process_whose_spark_has_started() -> None:
    with pytest.raises(SetupError, match="write the archive from another"):
        write_class_archive()


MAPPED = """
import sys
from pathlib import Path
sys.prefix = sys.argv[1]
from pyspark import SparkContext
from mission9 import RunConfig
from mission9.runners.spark import spark_runner
with spark_runner(RunConfig(master="local[1]")) as runner:
    maps = Path(f"/proc/{SparkContext._gateway.proc.pid}/maps").read_text()
    print("mission9/spark-" in maps, runner.map(lambda number: b"done", 1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("share", [1, 2, 0])
def test_spark_maps_a_whole_archive_and_ignores_another(share: int, tmp_path: Path) -> None:
    archive = class_archive()
    if archive is None:
        pytest.skip("there is no archive: make .venv/.classes")
    data = archive.read_bytes()
    copy = tmp_path / archive.relative_to(sys.prefix)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(data[: len(data) // share if share else 0])
    done = subprocess.run([sys.executable, "-c", MAPPED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{share == 1} [b'done']\n"
    assert done.stderr.count("WARN") == done.stderr.count("Error") == 0
