"""Convert the entries of an archive to paths that may be written, or refuse the archive as a whole."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mission9.datasets.fetch.archive import Bomb, Entry
from mission9.errors import InputError

MAX_BYTES = 64 << 30  # unpacked; Fruits-360 in all its editions takes 10
MAX_RATIO = 100  # unpacked over packed; images hardly compress
_RATIO_FROM = 1 << 20  # bytes below which the ratio does not count

_LONGEST_NAME = 255  # bytes, on every common file system
_MAX_DEPTH = 32

_MAC_ICON = "Icon\r"

_WHAT = {
    "link": "a link, which may lead out of the folder",
    "device": "neither a file nor a folder",
    "sparse": "a file with holes, which takes more room than it seems",
    "encrypted": "encrypted",
}


class Checked(NamedTuple):
    """An entry and its path, the parts of its name, which may be written below a folder."""

    path: tuple[str, ...]
    entry: Entry


def checked(entries: Iterable[Entry], archive_bytes: int) -> Iterator[Checked]:
    """The files among the entries, without folders, which paths imply, and without the icons of macOS folders.

    Raises:
        InputError: an entry leads out of the folder, is not a file, or has the path of another on some file system.
        Bomb: the entries have too many bytes in total, or more than an archive of `archive_bytes` can hold.
    """
    places = _Places()
    total = packed = 0
    for entry in entries:
        if entry.name.rpartition("/")[2] == _MAC_ICON:
            continue
        path = _path(entry)
        if entry.kind not in ("file", "folder"):
            raise InputError(f"it holds {_named(entry)}, which is {_WHAT[entry.kind]}")
        places.take(path, entry)
        if entry.kind == "folder":
            continue
        total += entry.size
        packed += entry.packed or 0
        if entry.packed is not None and entry.size > max(_RATIO_FROM, MAX_RATIO * entry.packed):
            raise Bomb(f"{_named(entry)} would unpack to {entry.size:,} bytes from {entry.packed:,}")
        if total > MAX_BYTES or total > max(_RATIO_FROM, MAX_RATIO * archive_bytes):
            raise Bomb(f"it would unpack to more than {total:,} bytes from {archive_bytes:,}")
        if packed > archive_bytes:
            raise Bomb("its entries lie on top of each other")
        yield Checked(path, entry)


def _path(entry: Entry) -> tuple[str, ...]:
    """The parts of an entry's name.

    Raises:
        InputError: no legitimate archive has such a name.
    """
    name = entry.name.removeprefix("./").rstrip("/")
    parts = tuple(name.split("/")) if name not in ("", ".") else ()
    why = ""
    if entry.name.startswith("/") or ".." in parts or (parts and len(parts[0]) == 2 and parts[0][1] == ":"):
        why = "a name that leads out of the folder"
    elif "\\" in name or not all(parts) or "." in parts:
        why = "a name that programs understand in different ways"
    elif any(not character.isprintable() for character in name):
        why = "a name with what does not print"
    elif len(parts) > _MAX_DEPTH or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        why = "a name that is too long"
    if why:
        raise InputError(f"it holds {_named(entry)}, {why}")
    return parts


def _named(entry: Entry) -> str:
    return ascii(entry.name[:100])


class _Places:
    """Paths in use, on a file system that ignores case (A and a) and Unicode normalization (two encodings of é)."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._files: set[str] = set()

    def take(self, path: tuple[str, ...], entry: Entry) -> None:
        """Reserve the path of an entry, and of the folders above it.

        Raises:
            InputError: another entry has the path.
        """
        folders = path if entry.kind == "folder" else path[:-1]
        for depth in range(1, len(folders) + 1):
            folder = "/".join(folders[:depth])
            key = _as_seen(folder)
            if key in self._files or self._folders.setdefault(key, folder) != folder:
                raise _taken(entry)
        if entry.kind != "folder":
            key = _as_seen("/".join(path))
            if key in self._files or key in self._folders or not path:
                raise _taken(entry)
            self._files.add(key)


def _as_seen(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _taken(entry: Entry) -> InputError:
    return InputError(
        f"{_named(entry)} takes the path of another entry, ignoring case: get the archive from its publisher"
    )
