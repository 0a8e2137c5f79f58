"""Work of a thread beside what is done in a context."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HURRY = 2.0  # seconds


@contextmanager
def background_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Have a thread work until the context ends, which the event that it is given tells it.

    After an error, or a Ctrl-C, it is waited for no longer than seconds: a server that is gone would be asked again.
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
    """Do work that matters little by now: for seconds, then it is left to itself, and its errors with it."""

    def tried() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    thread.join(HURRY)
