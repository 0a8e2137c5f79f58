"""An archive for each danger: it is refused as a whole, in a line, and nothing of it is written anywhere."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mission9.cli import main
from mission9.datasets.fetch import archive as archive_module
from mission9.datasets.fetch import check_entries
from tests.datasets.fetch.conftest import Files, make_tar, make_zip

GOOD: Files = {"Training/a/1.jpg": b"one", "Test/a/1.jpg": b"two"}

NAMES = {
    "up": ("../outside.jpg", "leads out of the folder"),
    "up from within": ("Training/../../outside.jpg", "leads out of the folder"),
    "absolute": ("/tmp/outside.jpg", "leads out of the folder"),
    "a drive": ("C:/outside.jpg", "leads out of the folder"),
    "backslashes": ("..\\outside.jpg", "understand in different ways"),
    "dots": ("Training/./a/2.jpg", "understand in different ways"),
    "empty parts": ("Training//a/2.jpg", "understand in different ways"),
    "an end of line": ("Training/a/2\n.jpg", "does not print"),
    "an escape": ("Training/a/\x1b[31m.jpg", "does not print"),
    "a long name": (f"Training/a/{'x' * 300}.jpg", "too long"),
    "a deep one": ("/".join(["d"] * 40), "too long"),
    "large letters": ("training/A/1.JPG", "ignoring case"),
    "large folders": ("Training/A/2.jpg", "ignoring case"),
    "a file as a folder": ("Training/a/1.jpg/2.jpg", "ignoring case"),
    "a folder as a file": ("Training/a", "ignoring case"),
}


def refused(archive: Path, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, before = tmp_path / "there" / "dataset", set(tmp_path.rglob("*"))
    assert main(["fetch", "--archive", str(archive), "--output", str(output)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mission9: ")]
    assert words in line
    assert set(tmp_path.rglob("*")) - before <= {tmp_path / "there"}
    assert not Path("/tmp/outside.jpg").exists()


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("which", NAMES)
def test_names(
    which: str, make: Callable[[Path, Files], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, words = NAMES[which]
    refused(make(tmp_path / "archive", {**GOOD, name: b"three"}), words, tmp_path, capsys)


def test_a_name_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for content in (b"one", b"two"):
            info = tarfile.TarInfo("Training/a/1.jpg")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    refused(tmp_path / "twice.tar", "ignoring case", tmp_path, capsys)
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as packed:
        packed.writestr("Training/a/1.jpg", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("Training/a/1.jpg", b"two")
    refused(tmp_path / "twice.zip", "ignoring case", tmp_path, capsys)
    two_ways = {"Training/p\u00eache/1.jpg": b"1", "Training/pe\u0302che/1.jpg": b"2"}
    refused(make_zip(tmp_path / "ways.zip", two_ways), "ignoring case", tmp_path, capsys)


TAR_KINDS = {
    "symlink": (tarfile.SYMTYPE, "a link"),
    "hard link": (tarfile.LNKTYPE, "a link"),
    "device": (tarfile.CHRTYPE, "neither a file nor a folder"),
    "disk": (tarfile.BLKTYPE, "neither a file nor a folder"),
    "pipe": (tarfile.FIFOTYPE, "neither a file nor a folder"),
}


@pytest.mark.parametrize("which", TAR_KINDS)
def test_what_is_no_file_in_a_tar(which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, words = TAR_KINDS[which]
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("Training/a")
        info.type, info.linkname = kind, "/etc"
        archive.addfile(info)
        info = tarfile.TarInfo("Training/a/passwd")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"one"))
    refused(tmp_path / "a.tar.gz", words, tmp_path, capsys)


@pytest.mark.parametrize(
    ("mode", "words"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "neither a file"), (stat.S_IFIFO, "neither a file")]
)
def test_what_is_no_file_in_a_zip(mode: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = make_zip(tmp_path / "a.zip", {"Training/a": b"/etc"}, external_attr=(mode | 0o777) << 16, create_system=3)
    refused(archive, words, tmp_path, capsys)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_bombs(make: Callable[[Path, Files], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = make(tmp_path / "bomb", {**GOOD, "Training/a/2.jpg": bytes(50 << 20)})
    assert archive.stat().st_size < 100_000
    refused(archive, "would unpack to", tmp_path, capsys)


def test_a_bomb_of_entries_on_top_of_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file's content, which a hundred entries in the list of contents point to."""
    make_zip(tmp_path / "one.zip", {"Training/a/0000.jpg": os.urandom(30_000)})
    content = (tmp_path / "one.zip").read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    listed = content[start:end]
    many = b"".join(listed.replace(b"0000", b"%04d" % n) for n in range(100))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 100, 100, len(many), start, 0)
    (tmp_path / "bomb.zip").write_bytes(content[:start] + many + tail)
    refused(tmp_path / "bomb.zip", "lie on top of each other", tmp_path, capsys)


def test_too_many_entries_or_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "MAX_ENTRIES", 10)
    many = {f"Training/a/{n}.jpg": b"x" for n in range(12)}
    refused(make_zip(tmp_path / "many.zip", many), "more than 10 entries", tmp_path, capsys)
    refused(make_tar(tmp_path / "many.tgz", many), "more than 10 entries", tmp_path, capsys)
    monkeypatch.setattr(check_entries, "MAX_BYTES", 5)
    refused(make_zip(tmp_path / "large.zip", GOOD), "would unpack to more than", tmp_path, capsys)


def test_a_header_that_claims_a_gigabyte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    with gzip.open(tmp_path / "a.tgz", "wb", 1) as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(1 << 5):
            file.write(bytes(1 << 20))
    refused(tmp_path / "a.tgz", "a header in it claims", tmp_path, capsys)


def test_an_entry_that_lies_about_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = make_zip(tmp_path / "a.zip", {**GOOD, "Training/a/2.jpg": os.urandom(50_000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<L", 50_000), struct.pack("<L", 40_000)))
    refused(archive, "damaged", tmp_path, capsys)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_damaged_ones(make: Callable[[Path, Files], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = make(tmp_path / "a", {**GOOD, "Training/a/2.jpg": os.urandom(50_000)})
    content = archive.read_bytes()
    damaged = bytearray(content)
    damaged[20_000] ^= 0x55
    for bad in (content[:30_000], bytes(damaged), b"PK\x03\x04", b"GIF89a" * 200, b""):
        archive.write_bytes(bad)
        refused(archive, "or damaged" if bad else "no .zip", tmp_path, capsys)
    refused(tmp_path / "none.zip", "there is no archive", tmp_path, capsys)


@pytest.mark.parametrize("damage", ["name", "lzma", "bzip2"])
def test_a_zip_whose_damage_each_library_tells_in_its_own_way(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = {"lzma": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2}.get(damage, zipfile.ZIP_STORED)
    files = {**GOOD, "Training/a/p\u00eache.jpg": os.urandom(1000)}
    archive = make_zip(tmp_path / "a.zip", files, compress_type=kind)
    content = bytearray(archive.read_bytes())
    if damage == "name":  # which is said to be UTF-8
        content = content.replace("\u00ea".encode(), b"\xeae")
    else:
        at = content.index(b"Training/a/1.jpg") + len("Training/a/1.jpg")
        content[at + 4 : at + 8] = b"\xff" * 4
    archive.write_bytes(content)
    refused(archive, "or damaged", tmp_path, capsys)


@pytest.mark.parametrize("method", [9, 93, 98, 1])
def test_a_zip_packed_by_what_python_cannot_unpack_says_so(
    method: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(make_zip(tmp_path / "a.zip", GOOD).read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 10 : at + 12] = struct.pack("<H", method)
    (tmp_path / "a.zip").write_bytes(content)
    name = {9: "Deflate64", 93: "Zstandard", 98: "PPMd"}.get(method, "method 1")
    refused(tmp_path / "a.zip", f"packed by {name}, which Python does not unpack: unpack it", tmp_path, capsys)


@pytest.mark.parametrize(
    ("begin", "kind"),
    [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "RAR"), (b"BZh91A", "bzip2"), (b"\xfd7zXZ\0", "xz")],
)
def test_an_archive_of_another_kind_is_told_by_its_name(
    begin: bytes, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.zip").write_bytes(begin + bytes(1000))
    refused(tmp_path / "a.zip", kind, tmp_path, capsys)
    (tmp_path / "b.zip").write_bytes(begin + bytes(1000))
    refused(tmp_path / "b.zip", "which is not read here: unpack it", tmp_path, capsys)


def test_a_zip_of_a_later_version_is_not_called_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(make_zip(tmp_path / "a.zip", GOOD).read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", "a .zip that Python does not read (zip file version 9.9)", tmp_path, capsys)


def test_headers_one_in_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 5
    chain = (header.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")) * 3000
    (tmp_path / "a.tar").write_bytes(chain + make_tar(tmp_path / "good.tar", GOOD, "w").read_bytes())
    refused(tmp_path / "a.tar", "or damaged", tmp_path, capsys)


def test_an_encrypted_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = make_zip(tmp_path / "a.zip", GOOD)
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    archive.write_bytes(bytes(content))
    refused(archive, "encrypted", tmp_path, capsys)


def test_a_tar_with_holes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Training").mkdir()
    with (tmp_path / "Training" / "1.jpg").open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["tar", "cSf", "a.tar", "Training"], cwd=tmp_path, check=True)
    refused(tmp_path / "a.tar", "a file with holes", tmp_path, capsys)


@pytest.mark.slow
def test_memory_stays_small_whatever_the_archive_claims(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "bomb.tgz", {**GOOD, "Training/a/2.jpg": bytes(300 << 20)})
    script = """
import resource, sys
from mission9.cli import main
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", script, "fetch", "--archive", str(archive), "--output", str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "would unpack to" in done.stderr
