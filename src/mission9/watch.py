"""A worker process that hangs or is stopped is ended, so that its task is tried again by another.

A task that shows no progress for long hangs, and a timer of the process's own ends it. A process that is stopped has no
timers: a small child looks at it each second. Both are for worker processes alone, which a runner replaces; what stops
a whole run, as Ctrl-Z does, stops the child with the rest.
"""

from __future__ import annotations

import faulthandler
import inspect
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LOOK = 1.0  # seconds between looks at a process


@dataclass(frozen=True)
class Patience:
    """Seconds until a worker is given up that shows no progress, or that is stopped."""

    hang: float = 300.0
    stop: float = 30.0


PATIENCE = Patience()


class _Alarm:
    """The timer that ends this process; a limit of 0 where it runs no task."""

    limit = 0.0
    set_at = 0.0
    lock = threading.Lock()


@contextmanager
def watched(patience: Patience) -> Iterator[None]:
    """Run a task in a worker process, which is ended where the task does not get on. Never for a user's own process."""
    _start_child(os.getpid(), patience.stop)
    _Alarm.limit, _Alarm.set_at = patience.hang, 0.0
    progress()
    try:
        yield
    finally:
        with _Alarm.lock:
            _Alarm.limit = 0.0
            faulthandler.cancel_dump_traceback_later()


def progress() -> None:
    """Say that this process gets on with its task; from any thread, as often as one likes."""
    if not _Alarm.limit or time.monotonic() - _Alarm.set_at < min(_LOOK, _Alarm.limit / 10):
        return
    with _Alarm.lock:
        if _Alarm.limit:
            _Alarm.set_at = time.monotonic()
            # Written in C, it needs nothing of a Python that hangs, and tells where it did.
            faulthandler.dump_traceback_later(_Alarm.limit, exit=True, file=2)


def is_stopped(process: int) -> bool:
    """Whether a process is stopped by a signal; one that a debugger holds is not."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False


@cache
def _start_child(process: int, limit: float) -> subprocess.Popen[bytes]:
    """The child that looks after this process; it has no need of installed packages, and starts in no time."""
    command = [sys.executable, "-I", "-S", "-c", inspect.getsource(sys.modules[__name__]), str(process), str(limit)]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing)  # noqa: S603


def _look_after(process: int, limit: float) -> None:
    """End a process that has been stopped for so long; return when it is gone, and its end of standard input with it.

    Looks are counted, and not time, which goes on where both are stopped.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's
    stopped = 0
    while not select.select([sys.stdin], [], [], _LOOK)[0]:
        stopped = stopped + 1 if is_stopped(process) else 0
        if stopped * _LOOK >= limit:
            os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    _look_after(int(sys.argv[1]), float(sys.argv[2]))
