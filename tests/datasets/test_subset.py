from __future__ import annotations

import errno
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from mission9.cli import main
from mission9.datasets.subset import list_subsets, make_subset
from mission9.errors import ConfigError, InputError, OutputError, StorageError
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.storage.local.files import private_name
from tests.conftest import REPOSITORY


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "fruits-360"
    for folder, count in (("Training/Apple 1", 200), ("Training/Pêche", 30), ("Test/Apple 1", 3)):
        (root / folder).mkdir(parents=True)
        for n in range(count):
            (root / folder / f"{n}_100.jpg").write_bytes(f"{folder} {n}".encode())
    (root / "LICENSE").write_text("free")
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_share_of_every_label_and_at_least_one(source: Path, tmp_path: Path) -> None:
    folder, count, _ = make_subset(source, tmp_path / "subsets", 5)
    assert folder.name == "fruits-360-5pct"
    found = [os.path.dirname(name) for name in files(folder)]
    assert {name: found.count(name) for name in found} == {
        "Training/Apple 1": 10,
        "Training/Pêche": 2,
        "Test/Apple 1": 1,
    }
    assert count == 13


def test_smaller_subsets_are_parts_of_larger_ones_of_the_source(source: Path, tmp_path: Path) -> None:
    contents = [files(make_subset(source, tmp_path / "subsets", p)[0]) for p in (1, 5, 10, 25, 50, 100)]
    for smaller, larger in pairwise(contents):
        assert smaller.items() < larger.items()
    assert contents[-1].items() < files(source).items()


@pytest.mark.parametrize("copy", [False, True])
def test_a_second_call_changes_nothing_and_the_source_is_untouched(source: Path, tmp_path: Path, copy: bool) -> None:
    before = files(source)
    folder, *_ = make_subset(source, tmp_path / "subsets", 10, copy=copy)
    times = {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}
    make_subset(source, tmp_path / "subsets", 10, copy=copy)
    assert {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")} == times
    assert files(source) == before
    one = next(path for path in folder.rglob("*.jpg"))
    assert (one.stat().st_nlink > 1) is not copy


def test_a_subset_is_not_put_into_its_source(source: Path) -> None:
    with pytest.raises(OutputError, match="is inside the dataset: give a folder outside"):
        make_subset(source, source / "subsets", 10)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Eight images as a run lists them, by links and without an extension too, and four files that are none."""
    root = tmp_path / "odd"
    for folder, names in (("Training/a", ("0.jpg", "1.jpg", "bare")), ("Training/b", ("0.jpg", "été\\xff.png"))):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).write_bytes(f"{folder} {name}".encode())
    (root / "Training/c").symlink_to("b")
    (root / "Training/a/link.jpg").symlink_to("../b/0.jpg")
    (tmp_path / "outside.jpg").touch()
    (root / "Training/b/outside.jpg").symlink_to("../../../outside.jpg")
    (root / "Training/a/nothing.jpg").symlink_to("gone.jpg")
    os.mkfifo(root / "Training/a/pipe.jpg")
    (root / "Training/a/notes.txt").write_text("none")
    return root


def listed(folder: Path) -> set[str]:
    found = ListingCounts()
    return {path for batch in list_images(find_root(str(folder)), found) for path in batch["path"].to_pylist()}


@pytest.mark.parametrize("copy", [False, True])
def test_the_whole_is_what_a_run_lists_and_the_rest_is_told(
    odd: Path, tmp_path: Path, copy: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = listed(odd) - {"Training/a/nothing.jpg", "Training/a/pipe.jpg"}
    assert len(wanted) == 8
    command = ["subset", "--input", str(odd), "--output", str(tmp_path / "out"), "--percentage", "100"]
    assert main([*command, *(["--copy"] if copy else [])]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{tmp_path / 'out' / 'odd-100pct'}: 8 images"
    # That of b is there twice: by the link c too.
    assert told[1].endswith("5 skipped (2 (link), 2 (no file), 1 .txt)")
    folder = tmp_path / "out" / "odd-100pct"
    assert listed(folder) == wanted
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    assert (folder / "Training/a/link.jpg").read_bytes() == (odd / "Training/b/0.jpg").read_bytes()
    assert list_subsets(tmp_path / "out") == {str(folder): 8}


def test_a_folder_that_cannot_be_read_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refusing(place: bytes | str) -> object:  # the tests may run as root, who may read anything
        if os.fsencode(place).rstrip(b"/").endswith("Pêche".encode()):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(
        InputError, match="Pêche cannot be read: Permission denied; fix its permissions or disk, or move it"
    ):
        make_subset(source, tmp_path / "out", 10)
    assert not (tmp_path / "out").exists()


def test_a_copy_that_fails_leaves_nothing_of_itself(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr("shutil.copy2", fails)
    with pytest.raises(StorageError, match=r"not enough space for .*_100.jpg \("):
        make_subset(source, tmp_path / "out", 10, copy=True)
    assert files(tmp_path / "out") == {}


def test_what_a_killed_copy_left_is_no_image(source: Path, tmp_path: Path) -> None:
    folder, count, _ = make_subset(source, tmp_path / "out", 10, copy=True)
    private_name(folder / "Training/Apple 1/1_100.jpg").write_bytes(b"half")
    assert list_subsets(tmp_path / "out") == {str(folder): count}


def test_impossible_requests(source: Path, tmp_path: Path) -> None:
    for percentage in (0, -1, 101):
        with pytest.raises(ConfigError, match="at most 100"):
            make_subset(source, tmp_path, percentage)
    with pytest.raises(InputError, match="no folder"):
        make_subset(tmp_path / "nowhere", tmp_path, 5)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        make_subset(source, tmp_path / "file", 5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        make_subset(tmp_path / "empty", tmp_path / "out", 5)


def test_command_and_script_do_the_same(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--input", str(source), "--output", str(tmp_path / "subsets")]
    assert main(["subset", "--all", *options]) == 0
    assert main(["subset", "--list", *options]) == 0
    assert "fruits-360-50pct: 117 images" in capsys.readouterr().out
    assert len(list_subsets(tmp_path / "subsets")) == 5
    script = [sys.executable, str(REPOSITORY / "scripts" / "subset_data.py")]
    told = subprocess.run([*script, "--list", *options], capture_output=True, text=True, check=True)
    assert "fruits-360-1pct: 4 images" in told.stdout
    assert main(["subset", *options]) == 2
    assert main(["subset", "--all", "--percentage", "5", *options]) == 2
