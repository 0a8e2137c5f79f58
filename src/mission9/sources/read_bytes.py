"""A file's path -> its bytes, or the reason why not."""

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

# A file that somebody writes meanwhile is read again so often, after so many seconds.
_TRIES, _PAUSE = 5, 0.1


def read_bytes(path: bytes, *, max_bytes: int) -> bytes:
    """The whole content of a regular file.

    Raises:
        ImageError: with the reason.
    """
    try:
        for _ in range(_TRIES):
            data = retry_io(lambda: _read(path, max_bytes))
            if data is not None:
                return data
            time.sleep(_PAUSE)
        raise ImageError("unreadable", "it changes all the time while it is read")
    except FileNotFoundError as error:
        raise ImageError("vanished", "there is no such file (any more)") from error
    except PermissionError as error:
        raise ImageError("permission_denied", "the file may not be read") from error
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error


def _read(path: bytes, max_bytes: int) -> bytes | None:
    """The content of a file; None if it changed meanwhile."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # to open a device may set it going
        raise ImageError("unreadable", "not a regular file")
    # O_NONBLOCK: opening a named pipe that nobody writes to must not wait for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError("unreadable", "not a regular file")
        if facts.st_size > max_bytes:
            raise ImageError("too_many_bytes", f"{facts.st_size} bytes are more than {max_bytes}")
        data, after = _content(file, max_bytes), os.fstat(file.fileno())
        is_same = facts.st_mtime_ns == after.st_mtime_ns and facts.st_size == after.st_size == len(data)
        return data if is_same else None


def _content(file: BinaryIO, max_bytes: int) -> bytes:
    """In pieces, so that a large file on a slow disk is not taken for a hang."""
    content = io.BytesIO()
    while piece := file.read(min(_PIECE, max_bytes - content.tell())):
        content.write(piece)
        progress()
    return content.getvalue()
