"""Connections to an fsspec store: shared if the backend is thread-safe, else pooled, each for one thread at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mission9.errors import ImageError

# Answers of a healthy server; after any other error a connection may be broken.
ANSWERS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ImageError)

# The limit of a connection's idle time in seconds: servers close idle ones, and some errors then look like an answer.
_FRESH = 60.0


class Connections:
    """A connection for each concurrent thread, or a single one if fsspec shares it safely."""

    def __init__(self, first: Any, connect: Callable[[], Any]) -> None:
        self._connect = connect
        # Asynchronous backends run in a thread of fsspec's own, for all callers.
        self.are_shared = bool(first.async_impl)
        self._shared = first if self.are_shared else None
        self._idle = [] if self.are_shared else [(first, time.monotonic())]

    @contextmanager
    def one(self) -> Iterator[Any]:
        """A connection, for this thread alone unless it is shared."""
        if self.are_shared:
            yield self._shared
            return
        fs = self._take()
        try:
            yield fs
        except ANSWERS:
            self._give_back(fs)
            raise
        except Exception:
            self._idle.clear()  # the cause may have broken them all
            raise
        self._give_back(fs)

    def _take(self) -> Any:
        while self._idle:
            try:
                fs, since = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - since < _FRESH:
                return fs
        return self._connect()

    def _give_back(self, fs: Any) -> None:
        self._idle.append((fs, time.monotonic()))
