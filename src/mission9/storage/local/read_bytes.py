"""A file's path -> its bytes, or the reason for a reject."""

from __future__ import annotations

import io
import os
import stat
import time
from typing import BinaryIO

from mission9.concurrency.watchdog import progress
from mission9.errors import ImageError
from mission9.storage.local.files import retry_io

_PIECE = 16 * 1024 * 1024

# Retries for a file that is being written: how many, after how many seconds.
_TRIES, _PAUSE = 5, 0.1


def read_bytes(path: bytes, *, max_bytes: int) -> bytes:
    """Read a whole regular file.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        for _ in range(_TRIES):
            data = retry_io(lambda: _read(path, max_bytes))
            if data is not None:
                return data
            time.sleep(_PAUSE)
        raise ImageError("unreadable", "the file keeps changing while it is read")
    except FileNotFoundError as error:
        raise ImageError("vanished", "the file does not exist (any more)") from error
    except PermissionError as error:
        raise ImageError("permission_denied", "no permission to read the file") from error
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error


def _read(path: bytes, max_bytes: int) -> bytes | None:
    """The content of a file; None if it changed during the read."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a device may activate it
        raise ImageError("unreadable", "not a regular file")
    # O_NONBLOCK: opening a named pipe without a writer must not block.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError("unreadable", "not a regular file")
        if facts.st_size > max_bytes:
            raise ImageError("too_many_bytes", f"{facts.st_size} bytes exceed the limit of {max_bytes}")
        data, after = _content(file, max_bytes), os.fstat(file.fileno())
        is_same = facts.st_mtime_ns == after.st_mtime_ns and facts.st_size == after.st_size == len(data)
        return data if is_same else None


def _content(file: BinaryIO, max_bytes: int) -> bytes:
    """Read in pieces, so that a large file on a slow disk does not look like a hang."""
    content = io.BytesIO()
    while piece := file.read(min(_PIECE, max_bytes - content.tell())):
        content.write(piece)
        progress()
    return content.getvalue()
