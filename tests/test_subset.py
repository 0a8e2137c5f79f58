from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from mission9.cli import main
from mission9.errors import ConfigError, InputError, OutputError
from mission9.subset import list_subsets, make_subset
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
    folder, count = make_subset(source, tmp_path / "subsets", 5)
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
    folder, _ = make_subset(source, tmp_path / "subsets", 10, copy=copy)
    times = {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}
    make_subset(source, tmp_path / "subsets", 10, copy=copy)
    assert {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")} == times
    assert files(source) == before
    one = next(path for path in folder.rglob("*.jpg"))
    assert (one.stat().st_nlink > 1) is not copy


def test_a_subset_is_not_put_into_its_source(source: Path) -> None:
    with pytest.raises(OutputError, match="lies in the dataset itself"):
        make_subset(source, source / "subsets", 10)


def test_a_link_becomes_the_picture_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "real.jpg").write_bytes(b"picture")
    (tmp_path / "in" / "a" / "link.jpg").symlink_to("../../real.jpg")
    for _ in range(2):
        folder, count = make_subset(tmp_path / "in", tmp_path / "out", 100)
        assert count == 1
        assert files(folder) == {"a/link.jpg": b"picture"}


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
