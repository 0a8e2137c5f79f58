"""After a power cut, a disk holds what had reached it: a result that is named is whole."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.disk.files import write_whole
from mission9.output.folder import REPORT
from mission9.stages.verify_output import verify_output
from tests.conftest import InProcessRunner
from tests.hostile import tables


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """A file system in a file, which writes nothing by itself for minutes."""
    place.mkdir()
    command = ["mount", "-o", "loop,commit=300", str(image), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4")
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    return image


def test_a_result_that_is_named_is_whole(
    disk: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes as soon as `run.json` is on the disk, and once more when the run has ended."""

    def then_cut(file: Path, content: bytes) -> None:
        write_whole(file, content)
        if file == place / "out" / REPORT:
            shutil.copyfile(disk, tmp_path / "cut at once")

    monkeypatch.setattr("mission9.output.folder.write_whole", then_cut)
    with mounted(disk, tmp_path / "place") as place:
        settings = {"input": str(tree), "output": str(place / "out"), "weights": "demo", "components": 3}
        run(RunConfig(**settings, no_report=True), InProcessRunner())
        wanted = tables(place / "out")
        shutil.copyfile(disk, tmp_path / "cut at the end")
    with mounted(tmp_path / "cut at once", tmp_path / "at once") as after:
        assert tables(after / "out") == wanted
    with mounted(tmp_path / "cut at the end", tmp_path / "at the end") as after:
        assert tables(after / "out") == wanted
        assert list(verify_output(str(after / "out"))) == []
