"""A background thread for the duration of a context."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HURRY = 2.0  # seconds


@contextmanager
def background_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a background thread; its event is set when the context exits.

    After an error or a Ctrl-C, the thread gets only seconds to end: it may be retrying a dead server.
    """
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join(HURRY)
        raise
    ended.set()
    thread.join()


def run_with_deadline(work: Callable[[], object]) -> None:
    """Run `work` for some seconds at most, then abandon it; its errors are ignored."""

    def tried() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    thread.join(HURRY)
