"""Local copies of bucket contents: each is made whole by one process and kept while any process reads it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from mission9.storage.local.files import files_in, make_folder, private_name, remove_file, remove_folder
from mission9.storage.local.lock import lock_file, wait_for_lock

_LOCK = ".lock"

# The copies that this process may read. The system releases their locks when it ends.
_in_use: dict[Path, int] = {}


def kept_copy(place: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name` in `place`, made by `fill` under a temporary name if absent. Unused copies are deleted.

    Raises:
        OSError: the cache cannot be written.
    """
    folder = place / name
    with wait_for_lock(place.with_name(place.name + _LOCK)):
        make_folder(place)
        if not folder.is_dir():
            _make(folder, fill)
        _use(folder)
        _clear_away(place)
    return folder


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    new = private_name(folder)
    try:
        fill(new)
        new.rename(folder)
    finally:
        remove_folder(new)


def _use(folder: Path) -> None:
    lock = _open(folder)
    lock_file(lock, fcntl.LOCK_SH, folder.parent)
    if (before := _in_use.pop(folder, None)) is not None:
        os.close(before)
    _in_use[folder] = lock


def _clear_away(place: Path) -> None:
    """Delete the copies that no process reads, and the partial ones of killed processes."""
    for folder in files_in(place):
        if folder.suffix == _LOCK:
            continue
        lock = _open(folder)
        try:
            lock_file(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, place)
            remove_folder(folder) if folder.is_dir() else remove_file(folder)
            remove_file(_lock_of(folder))
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def _open(folder: Path) -> int:
    return os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT, 0o600)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)
