"""Connections to a store of fsspec: one that may be shared is, others serve a thread at a time, and then the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mission9.errors import ImageError

# After anything else a connection may be broken; these are answers by one that is well.
ANSWERS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ImageError)

# Seconds that one may have been idle: servers close them sooner or later, and some errors then look like an answer.
_FRESH = 60.0


class Connections:
    """As many connections as there are threads that use them at a time; one alone where fsspec shares it safely."""

    def __init__(self, first: Any, connect: Callable[[], Any]) -> None:
        self._connect = connect
        # What is asynchronous is done in a thread of fsspec's own, whichever thread asks.
        self.are_shared = bool(first.async_impl)
        self._shared = first if self.are_shared else None
        self._idle = [] if self.are_shared else [(first, time.monotonic())]

    @contextmanager
    def one(self) -> Iterator[Any]:
        """A connection, which nobody else uses meanwhile if it is none to be shared."""
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
            self._idle.clear()  # what broke one may have broken all
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
