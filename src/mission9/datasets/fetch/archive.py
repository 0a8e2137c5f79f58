"""Read an archive: its entries, and the content of selected entries, from beginning to end."""

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from mission9.errors import InputError

Kind = Literal["file", "folder", "link", "device", "sparse", "encrypted"]

# Fruits-360 in all its editions has 300,000 images; the list of entries is in memory.
MAX_ENTRIES = 2_000_000

_ZIP_ENTRY = b"PK\x01\x02"
_GZIP = b"\x1f\x8b"
_MAX_AT_ONCE = 64 << 20  # bytes of a header that tarfile may read; a long name takes a page

# The times that a file can have on every file system, and the time of a zip entry that records none.
_EARLIEST, _LATEST = -(1 << 31), (1 << 32) - 1
_NO_TIME = calendar.timegm((1980, 1, 1, 0, 0, 0))

# Compression methods of other zip programs that Python does not unpack; Windows uses the first for large files.
_OTHER_METHODS = {
    9: "Deflate64",
    93: "Zstandard",
    94: "MP3",
    95: "XZ",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
    99: "AES",
}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

# The first bytes of archives of unsupported kinds.
_OTHER_KINDS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"\x28\xb5\x2f\xfd": "packed by Zstandard",
}
_PACK_ANEW = "unpack it, and pack the folder as .zip or .tar.gz (7z x FILE; tar czf FOLDER.tar.gz FOLDER)"

_UTF8 = 0x800  # the flag of a zip entry with a UTF-8 name

# The libraries' exceptions for a damaged archive, or for a file that is not an archive.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(ValueError, OverflowError, RuntimeError),
)


@dataclass(frozen=True)
class Entry:
    """An entry as the archive describes it; `packed` is its size in the archive, if known."""

    name: str
    kind: Kind
    size: int
    packed: int | None
    modified: int


class Unreadable(InputError):
    """A file is not an archive, is damaged, or is packed in an unsupported way; the text names it."""


class Bomb(ValueError):
    """An archive is designed to exhaust memory or disk."""


def entries(archive: Path) -> Iterator[Entry]:
    """The entries of an archive, in its order.

    Raises:
        Unreadable: the file is not an archive, is damaged, or is packed in an unsupported way.
        Bomb: there are too many entries.
    """
    _check_kind(archive)
    with translate_damage(archive):
        yield from _zip_entries(archive) if _is_zip(archive) else _tar_entries(archive)


def contents(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[Entry, IO[bytes]]]:
    """The entries with wanted names; callers read the content of each before they ask for the next.

    Raises:
        Unreadable: the archive is damaged.
    """
    with translate_damage(archive):
        yield from _zip_contents(archive, wanted) if _is_zip(archive) else _tar_contents(archive, wanted)


@contextmanager
def translate_damage(archive: Path) -> Iterator[None]:
    """Convert the libraries' errors about an archive to one that explains the fault.

    Raises:
        Unreadable: in place of the libraries' exceptions.
    """
    try:
        yield
    except Bomb:
        raise
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # an error of the disk
            raise
        text = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, NotImplementedError):
            raise Unreadable(f"{archive} is a .zip that Python does not read ({text}): {_PACK_ANEW}") from error
        raise Unreadable(f"{archive} is no .zip, .tar or .tar.gz, or damaged ({text}): download it again") from error


def _check_kind(archive: Path) -> None:
    with archive.open("rb") as file:
        begin = file.read(6)
    for magic, kind in _OTHER_KINDS.items():
        if begin.startswith(magic):
            raise Unreadable(f"{archive} is {kind}, which is not read here: {_PACK_ANEW}")


def _is_zip(archive: Path) -> bool:
    with archive.open("rb") as file:
        return file.read(2) == b"PK"


def _zip_entries(archive: Path) -> Iterator[Entry]:
    with archive.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        count = at = 0
        while (at := content.find(_ZIP_ENTRY, at) + 1) and count <= MAX_ENTRIES:
            count += 1
    if count > MAX_ENTRIES:
        raise Bomb(f"it holds more than {MAX_ENTRIES:,} entries")
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.compress_type not in _METHODS and not info.flag_bits & 1:
                method = _OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
                told = f"{archive} holds {info.orig_filename[:100]!a}, packed by {method}, which Python does not unpack"
                raise Unreadable(f"{told}: {_PACK_ANEW}")
            yield _zip_entry(info, _zip_kind(info))


def _zip_entry(info: zipfile.ZipInfo, kind: Kind) -> Entry:
    try:
        modified = calendar.timegm(info.date_time)
    except ValueError:  # an invalid month: many programs write none
        modified = _NO_TIME
    return Entry(_zip_name(info), kind, info.file_size, info.compress_size, modified)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of an entry, as UTF-8 if possible: macOS writes it without the flag, and Python then decodes cp437."""
    # Python cuts `filename` at a NUL.
    if not info.flag_bits & _UTF8:
        with suppress(UnicodeError):
            return info.orig_filename.encode("cp437").decode("utf-8")
    return info.orig_filename


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
            if not info.is_dir() and wanted(_zip_name(info)):
                with opened.open(info) as content:
                    yield _zip_entry(info, "file"), content


class _Bounded(io.RawIOBase):
    """A stream that refuses larger reads than the headers of a tar may need."""

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
        if not 0 <= size <= _MAX_AT_ONCE:
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
            if count >= MAX_ENTRIES:
                raise Bomb(f"it holds more than {MAX_ENTRIES:,} entries")
            yield _tar_entry(member, _tar_kind(member))
        _check_rest(opened)


def _tar_entry(member: tarfile.TarInfo, kind: Kind) -> Entry:
    try:
        modified = min(max(int(member.mtime), _EARLIEST), _LATEST)
    except (ValueError, OverflowError):  # NaN, or infinite
        modified = _NO_TIME
    return Entry(member.name, kind, member.size, None, modified)


def _check_rest(opened: tarfile.TarFile) -> None:
    """Read the padding after the last entry, so that gzip verifies the whole archive.

    Raises:
        Bomb: the padding does not end.
    """
    stream: Any = opened.fileobj
    for _ in range(_MAX_AT_ONCE >> 20):
        if not stream.read(1 << 20):
            return
    raise Bomb("there is no end to what is behind its last entry")


def _members(opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := opened.next()) is not None:
        yield member
        opened.members = []  # type: ignore[attr-defined]  # tarfile would keep all members


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
