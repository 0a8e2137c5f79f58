"""After a power cut, a disk holds what had reached it: a result that is named is whole."""

from __future__ import annotations

import ctypes
import errno
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.output.layout import REPORT
from mission9.pack.make_pack import make_pack
from mission9.results.verify import verify_output
from mission9.storage.local.files import write_atomic
from tests.conftest import InProcessRunner
from tests.support.hostile import tables


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
        write_atomic(file, content)
        if file == place / "out" / REPORT:
            shutil.copyfile(disk, tmp_path / "cut at once")

    monkeypatch.setattr("mission9.output.local.write_atomic", then_cut)
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


def archive_of(tree: Path) -> Path:
    """A zip of a dataset, as `fetch` takes it."""
    return Path(shutil.make_archive(str(tree.parent / "archive"), "zip", tree))


def content_of(folder: Path) -> dict[str, bytes]:
    """The images below a folder by their paths."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.jpg")}


def commands(tree: Path, place: Path) -> dict[str, list[str]]:
    """Those that make a dataset anew in `place`."""
    return {
        "pack": ["pack", "--input", str(tree), "--output", str(place / "packed")],
        "fetch": ["fetch", "--archive", str(archive_of(tree)), "--output", str(place / "fetched")],
        "subset": ["subset", "--input", str(tree), "--output", str(place / "subsets"), "--percentage", "100"],
    }


def test_a_dataset_that_is_called_finished_is_on_the_disk(disk: Path, tree: Path, tmp_path: Path) -> None:
    """The power goes when a command has ended: each in turn, so that none is helped by what the next one syncs."""
    wanted = content_of(tree)
    with mounted(disk, tmp_path / "place") as place:
        for name, command in commands(tree, place).items():
            assert main(command) == 0
            shutil.copyfile(disk, tmp_path / name)
    with mounted(tmp_path / "pack", tmp_path / "after pack") as after:
        assert make_pack(str(after / "packed"), str(tmp_path / "again")).packed == len(wanted)
    with mounted(tmp_path / "fetch", tmp_path / "after fetch") as after:
        assert content_of(after / "fetched/fruits-360_dataset/fruits-360") == wanted
    with mounted(tmp_path / "subset", tmp_path / "after subset") as after:
        assert content_of(after / "subsets" / f"{tree.name}-100pct") == wanted


class FailingDisk:
    """A library whose disk tells, when it is asked, that it did not store what was written."""

    @staticmethod
    def syncfs(_: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1


@pytest.mark.parametrize("words", ["pack", "fetch", "subset", "subset --copy"])
def test_nothing_is_called_finished_that_a_disk_did_not_store(
    words: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *more = words.split()
    command = [*commands(tree, tmp_path)[name], *more]
    with monkeypatch.context() as patch:
        patch.setattr("mission9.storage.local.files._LIBC", FailingDisk)
        assert main(command) == 1
    assert "failed to store its data: Input/output error" in capsys.readouterr().err
    finished = ["packed/mission9-pack.json", "fetched/fruits-360_dataset", *(["subsets/*/*/*/*.jpg"] if more else [])]
    assert [file for pattern in finished for file in tmp_path.glob(pattern)] == []
    assert main(command) == 0
