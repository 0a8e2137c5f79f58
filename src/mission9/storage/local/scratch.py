"""Temporary folders of a user. They may contain names of images, so none outlives its process for long."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "mission9-work-"
_YOUNG = 60.0  # seconds within which a new folder may not be locked yet


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, deleted when the context ends; those of killed processes are deleted too."""
    clear_scratch()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # without locks, no folder is ever considered abandoned
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(folder)


def clear_scratch() -> None:
    """Delete the folders that no process holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another process deletes it, or it belongs to another user
            _delete_if_left(folder)


def _delete_if_left(folder: Path) -> None:
    facts = folder.lstat()
    is_ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
    if not is_ours or time.time() - facts.st_mtime < _YOUNG:
        return
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(held)
