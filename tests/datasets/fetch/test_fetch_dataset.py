from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.datasets.fetch.fetch_dataset import ATTRIBUTION, SOURCE, fetch_dataset
from mission9.errors import InputError, OutputError, StorageError
from mission9.storage.local.files import file_sha256
from tests.conftest import SHARED
from tests.datasets.fetch.conftest import LAYOUTS, Files, dataset, make_tar, make_zip
from tests.support.forks import Forks

DEFAULT = "fruits-360_dataset/fruits-360"


def images_below(folder: Path) -> Files:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def wanted(files: Files, place: str) -> Files:
    top = f"{place}/" if place else ""
    return {name.removeprefix(top): content for name, content in files.items() if name.startswith(top)}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_known_layout_ends_where_a_run_looks(
    layout: str, make: type, tmp_path: Path, pictures: list[bytes]
) -> None:
    files = dataset(layout, pictures)
    archive = make(tmp_path / "archive", files)
    fetched = fetch_dataset(tmp_path / "dataset", archive=archive)
    assert fetched.images == tmp_path / "dataset" / DEFAULT
    assert str(fetched.images).endswith(RunConfig().input)
    assert images_below(fetched.images) == wanted(files, LAYOUTS[layout]["100x100"])
    facts = json.loads((fetched.images.parent / SOURCE).read_bytes())
    assert facts["archive_sha256"] == file_sha256(archive)
    assert facts["images"] == {"Test": 1, "Training": 3}
    assert facts["folder"] == LAYOUTS[layout]["100x100"]
    assert f"{'fruits-360' if layout != 'none' else ''}/LICENSE" in facts["licence_files"]
    for name in facts["licence_files"]:
        assert (fetched.images.parent / name).is_file()
    text = (fetched.images.parent / ATTRIBUTION).read_text()
    assert "Mihai Oltean" in text
    assert "CC BY-SA 4.0" in text
    assert file_sha256(archive) in text
    assert os.listdir(tmp_path / "dataset") == ["fruits-360_dataset"]
    # Images have the times of the archive, so that a run knows them wherever they were fetched.
    assert {file.stat().st_mtime for file in fetched.images.rglob("*.jpg")} == {1722772800.0}


@pytest.mark.parametrize("time", [(1980, 0, 0, 0, 0, 0), (2024, 15, 31, 31, 63, 62)])
def test_a_zip_without_times_is_sound(time: tuple[int, ...], tmp_path: Path, pictures: list[bytes]) -> None:
    files = dataset("A", pictures)
    fetched = fetch_dataset(tmp_path / "dataset", archive=make_zip(tmp_path / "a.zip", files, date_time=time))
    assert images_below(fetched.images) == wanted(files, DEFAULT)
    assert {file.stat().st_mtime for file in fetched.images.rglob("*.jpg")} == {315532800.0}


@pytest.mark.parametrize("time", [str(2**70), str(-(2**70)), "inf", "nan"])
def test_times_that_no_file_can_have_are_brought_into_bounds(time: str, tmp_path: Path, pictures: list[bytes]) -> None:
    files = dataset("A", pictures)
    archive = make_tar(tmp_path / "a.tar", files, pax_headers={"mtime": time})
    fetched = fetch_dataset(tmp_path / "dataset", archive=archive)
    assert images_below(fetched.images) == wanted(files, DEFAULT)
    assert all(abs(file.stat().st_mtime) < 2**33 for file in fetched.images.rglob("*.jpg"))


def test_an_archive_whose_name_is_not_utf_8(tmp_path: Path, pictures: list[bytes]) -> None:
    archive = make_zip(tmp_path / "a.zip", dataset("A", pictures))
    archive = archive.rename(os.fsdecode(bytes(tmp_path) + b"/p\xeaches.zip"))
    command = ["fetch", "--archive", str(archive), "--output", str(tmp_path / "dataset")]
    assert main(command) == 0
    facts = json.loads((tmp_path / "dataset" / "fruits-360_dataset" / SOURCE).read_bytes())
    assert facts["archive"] == r"p\xeaches.zip"
    assert main(command) == 0


def test_a_variant_is_chosen_or_asked_for(tmp_path: Path, pictures: list[bytes]) -> None:
    for layout in ("B", "C"):
        files = dataset(layout, pictures)
        archive = make_zip(tmp_path / f"{layout}.zip", files)
        fetched = fetch_dataset(tmp_path / layout, archive=archive, variant="original")
        assert images_below(fetched.images) == wanted(files, LAYOUTS[layout]["original"])
        assert not fetch_dataset(tmp_path / layout, archive=archive).is_new
        with pytest.raises(OutputError, match="exists, from .*, its folder .*original-size: move it"):
            fetch_dataset(tmp_path / layout, archive=archive, variant="100x100")
    with pytest.raises(InputError, match="not just one of them is original"):
        fetch_dataset(tmp_path / "A", archive=make_zip(tmp_path / "A.zip", dataset("A", pictures)), variant="original")
    twice = {name.replace(DEFAULT, place): b"x" for name in dataset("A", pictures) for place in ("one", "two")}
    with pytest.raises(InputError, match="it holds one, two, and not just one of them is 100x100: unpack it, and give"):
        fetch_dataset(tmp_path / "twice", archive=make_zip(tmp_path / "twice.zip", twice))
    for files in ({"a/Training/x.jpg": b"x"}, {"1/2/3/4/5/Training/x": b"", "1/2/3/4/5/Test/x": b""}, {}):
        with pytest.raises(InputError, match="no folder with both Training/ and Test/"):
            fetch_dataset(tmp_path / "none", archive=make_zip(tmp_path / "none.zip", files or {"readme": b"x"}))
    assert not (tmp_path / "none").exists()


def test_every_edition_and_a_mac_s_archive_come_to_the_same_images(
    tmp_path: Path, pictures: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    files = dataset("A", pictures)
    original = "fruits-360-original-size/fruits-360-original-size"
    sized = {name.replace(DEFAULT, original): b"other" for name in files}
    beside = {f"{DEFAULT}/papers/x.pdf": b"%PDF", f"{DEFAULT}/test-multiple_fruits/a.jpg": b"of no split"}
    doubles = {str(Path("__MACOSX", name).with_name(f"._{Path(name).name}")): b"\0\5\x16\7" for name in files}
    own = {f"{DEFAULT}/.DS_Store": b"x", f"{DEFAULT}/Icon\r": b"", f"{DEFAULT}/Training/._Apple Braeburn 1": b"x"}
    in_tar = {str(Path(name).with_name(f"._{Path(name).name}")): b"\0\5\x16\7" for name in files} | own
    plain = wanted(files, DEFAULT)
    made = {
        "2021": (make_zip(tmp_path / "2021.zip", sized | files | beside), plain | {"papers/x.pdf": b"%PDF"}),
        "mac": (make_zip(tmp_path / "mac.zip", files | doubles | own), plain | {"Training/._Apple Braeburn 1": b"x"}),
        "tar": (make_tar(tmp_path / "mac.tgz", in_tar | files), plain | {"Training/._Apple Braeburn 1": b"x"}),
        "unsaid": (_without_flags(make_zip(tmp_path / "unsaid.zip", files)), plain),
    }
    with caplog.at_level(logging.INFO):
        for name, (archive, images) in made.items():
            fetched = fetch_dataset(tmp_path / name, archive=archive)
            assert images_below(fetched.images) == images, name
            assert fetched.source.images == {"Test": 1, "Training": 3}, name
    assert "test-multiple_fruits stays in the archive, with 1 images of no split" in caplog.text
    assert f"{len(files) + 1} files of macOS stay in the archive" in caplog.text
    fetched = fetch_dataset(tmp_path / "sized", archive=made["2021"][0], variant="original")
    assert images_below(fetched.images) == wanted(sized, original)


def _without_flags(archive: Path) -> Path:
    """The archive as a Mac writes it: names in UTF-8, and no word of it."""
    content = archive.read_bytes()
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        parts = content.split(magic)
        flags = at - len(magic) + 1
        content = magic.join([parts[0], *(p[:flags] + bytes([p[flags] & ~8]) + p[flags + 1 :] for p in parts[1:])])
    archive.write_bytes(content)
    return archive


@pytest.mark.real
@pytest.mark.slow
def test_real_images_packed_up_and_fetched_are_the_same(tmp_path: Path) -> None:
    source = SHARED / "fruits-360"
    subprocess.run(["tar", "czf", tmp_path / "fruits.tgz", "-C", source.parent, source.name], check=True)
    assert main(["fetch", "--archive", str(tmp_path / "fruits.tgz"), "--output", str(tmp_path / "dataset")]) == 0
    assert images_below(tmp_path / "dataset" / DEFAULT) == images_below(source)


def test_what_is_there_is_told_and_left_alone(
    tmp_path: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    archive, output = make_zip(tmp_path / "a.zip", dataset("A", pictures)), tmp_path / "dataset"
    command = ["fetch", "--archive", str(archive), "--output", str(output)]
    assert main(command) == 0
    assert "Training            3 images" in capsys.readouterr().out
    assert main(command) == 0
    assert ": there already; authors and licence" in capsys.readouterr().out
    other = make_zip(tmp_path / "b.zip", dataset("B", pictures))
    before = images_below(output)
    assert main(["fetch", "--archive", str(other), "--output", str(output)]) == 2
    assert "exists, from a.zip, its folder fruits-360_dataset/fruits-360: move it" in capsys.readouterr().err
    assert images_below(output) == before
    (output / "fruits-360_dataset" / SOURCE).unlink()
    with pytest.raises(OutputError, match="without a note of its origin"):
        fetch_dataset(output, archive=archive)


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_zip(tmp_path / "a.zip", dataset("A", pictures))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(StorageError, match="make room"):
        fetch_dataset(tmp_path / "dataset", archive=archive)
    assert not (tmp_path / "dataset").exists()


# It gets the signal when twenty images lie there, and half of the next.
INTERRUPTED = """
import os, sys
from mission9.cli import program
from mission9.datasets.fetch import fetch_dataset

number, copied, copy = int(sys.argv.pop(1)), 0, fetch_dataset._copy

def interrupted(content, target, size, what):
    global copied
    copied += 1
    if copied > 20:
        target.write_bytes(content.read(size // 2))
        os.kill(os.getpid(), number)
    copy(content, target, size, what)

fetch_dataset._copy = interrupted
program()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_there_is_nothing_half_done(how: signal.Signals, forks: Forks, tmp_path: Path) -> None:
    files = {f"Training/a/{n:05}.jpg": os.urandom(20_000) for n in range(60)} | {"Test/a/1.jpg": b"x"}
    archive, output = make_zip(tmp_path / "a.zip", files), tmp_path / "dataset"
    command = ["fetch", "--archive", str(archive), "--output", str(output)]
    done = forks.run(str(int(how)), *command, code=INTERRUPTED)
    assert done.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 143)
    assert not (output / "fruits-360_dataset").exists()
    if how == signal.SIGKILL:  # which leaves what was begun
        assert len(os.listdir(output / ".mission9-fetch" / "new" / "fruits-360" / "Training" / "a")) == 21
    assert subprocess.run([sys.executable, "-m", "mission9", *command], capture_output=True, check=True)
    assert images_below(output / DEFAULT) == files
    assert os.listdir(output) == ["fruits-360_dataset"]
