"""What an archive holds: its entries, and the content of those that are wanted, from beginning to end."""

from __future__ import annotations

import calendar
import gzip
import io
import lzma
import mmap
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from mission9.errors import InputError

Kind = Literal["file", "folder", "link", "device", "sparse", "encrypted"]

# Fruits-360 in all its editions has 300,000 images; a list of entries is in memory.
MOST_ENTRIES = 2_000_000

_ZIP_ENTRY = b"PK\x01\x02"
_GZIP = b"\x1f\x8b"
_MOST_AT_ONCE = 64 << 20  # what tarfile may read of a header: a long name takes a page

# The times that a file can have on every file system, and the one that zip files have who know none.
_EARLIEST, _LATEST = -(1 << 31), (1 << 32) - 1
_NO_TIME = calendar.timegm((1980, 1, 1, 0, 0, 0))

# What the libraries raise of an archive that is no such thing, whatever is wrong in it.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(ValueError, OverflowError, RuntimeError),
)


@dataclass(frozen=True)
class Entry:
    """An entry as the archive claims it to be; `packed` is what it takes in the archive, where that is known."""

    name: str
    kind: Kind
    size: int
    packed: int | None
    modified: int


class Bomb(ValueError):
    """An archive is made to use up memory or disk."""


def entries(archive: Path) -> Iterator[Entry]:
    """The entries of an archive, in its order.

    Raises:
        InputError: it is none, or damaged.
        Bomb: there are too many.
    """
    with damage_told(archive):
        yield from _zip_entries(archive) if _is_zip(archive) else _tar_entries(archive)


def contents(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[Entry, IO[bytes]]]:
    """The entries whose names are wanted, each with its content to read before the next is asked for.

    Raises:
        InputError: the archive is damaged.
    """
    with damage_told(archive):
        yield from _zip_contents(archive, wanted) if _is_zip(archive) else _tar_contents(archive, wanted)


@contextmanager
def damage_told(archive: Path) -> Iterator[None]:
    """Turn what is wrong with an archive into an error that says so.

    Raises:
        InputError: in the place of what the libraries raise.
    """
    try:
        yield
    except Bomb:
        raise
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        text = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{archive} is no .zip, .tar or .tar.gz, or damaged ({text}): download it again") from error


def _is_zip(archive: Path) -> bool:
    with archive.open("rb") as file:
        return file.read(2) == b"PK"


def _zip_entries(archive: Path) -> Iterator[Entry]:
    with archive.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        count = at = 0
        while (at := content.find(_ZIP_ENTRY, at) + 1) and count <= MOST_ENTRIES:
            count += 1
    if count > MOST_ENTRIES:
        raise Bomb(f"it holds more than {MOST_ENTRIES:,} entries")
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            yield _zip_entry(info, _zip_kind(info))


def _zip_entry(info: zipfile.ZipInfo, kind: Kind) -> Entry:
    try:
        modified = calendar.timegm(info.date_time)
    except ValueError:  # a month that there is not: many programs write none
        modified = _NO_TIME
    # What comes after a NUL, Python leaves away in `filename`.
    return Entry(info.orig_filename, kind, info.file_size, info.compress_size, modified)


def _zip_kind(info: zipfile.ZipInfo) -> Kind:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "link"
    if info.flag_bits & 1:
        return "encrypted"
    if info.is_dir():
        return "folder"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "device"


def _zip_contents(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[Entry, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if not info.is_dir() and wanted(info.orig_filename):
                with opened.open(info) as content:
                    yield _zip_entry(info, "file"), content


class _Bounded(io.RawIOBase):
    """A stream of which nobody gets more at a time than headers of a tar may have."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._stream.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._stream.seek(offset, whence))

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise Bomb(f"a header in it claims {size:,} bytes")
        return bytes(self._stream.read(size))


@contextmanager
def _tar(archive: Path) -> Iterator[tarfile.TarFile]:
    with archive.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
        file.seek(0)
        with gzip.open(file) if is_gzip else file as stream:
            bounded: Any = _Bounded(stream)
            with tarfile.open(fileobj=bounded, mode="r:") as opened:
                yield opened


def _tar_entries(archive: Path) -> Iterator[Entry]:
    with _tar(archive) as opened:
        for count, member in enumerate(_members(opened)):
            if count >= MOST_ENTRIES:
                raise Bomb(f"it holds more than {MOST_ENTRIES:,} entries")
            yield _tar_entry(member, _tar_kind(member))
        _check_rest(opened)


def _tar_entry(member: tarfile.TarInfo, kind: Kind) -> Entry:
    try:
        modified = min(max(int(member.mtime), _EARLIEST), _LATEST)
    except (ValueError, OverflowError):  # no number, or one without end
        modified = _NO_TIME
    return Entry(member.name, kind, member.size, None, modified)


def _check_rest(opened: tarfile.TarFile) -> None:
    """Read what is behind the last entry, padding: only then gzip has seen that all of it was right.

    Raises:
        Bomb: there is no end to it.
    """
    stream: Any = opened.fileobj
    for _ in range(_MOST_AT_ONCE >> 20):
        if not stream.read(1 << 20):
            return
    raise Bomb("there is no end to what is behind its last entry")


def _members(opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := opened.next()) is not None:
        yield member
        opened.members = []  # type: ignore[attr-defined]  # it would keep all of them


def _tar_kind(member: tarfile.TarInfo) -> Kind:
    if member.issym() or member.islnk():
        return "link"
    if member.isdir():
        return "folder"
    if member.issparse():
        return "sparse"
    return "file" if member.isreg() else "device"


def _tar_contents(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[Entry, IO[bytes]]]:
    with _tar(archive) as opened:
        for member in _members(opened):
            content = opened.extractfile(member) if member.isreg() and wanted(member.name) else None
            if content is not None:
                yield _tar_entry(member, "file"), content
