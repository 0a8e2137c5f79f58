"""A worker process that hangs or is stopped is ended, so that its task is tried again by another.

A task that shows no progress for long hangs, and a timer of the process's own ends it. A process that is stopped has no
timers: a small child looks at it each second, and now and then at others that its parent has started. Both are for
worker processes alone, which a runner replaces; what stops a whole run, as Ctrl-Z does, stops the child with the rest.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

_LOOK = 1.0  # seconds between looks at a process
_LOOKS_ABOUT = 10  # of which one goes to others, too: the system keeps no list of a parent's children


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
    look_after(os.getpid(), patience.stop)
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
    """Tell whether a process is stopped by a signal; one that a debugger holds is not."""
    try:
        return _stat(process)[0] == b"T"
    except (OSError, IndexError):
        return False


@cache
def look_after(process: int, limit: float) -> subprocess.Popen[bytes]:
    """Start the child that looks after this process; it has no need of installed packages, and starts in no time."""
    command = [sys.executable, "-I", "-S", "-c", inspect.getsource(sys.modules[__name__]), str(process), str(limit)]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing)  # noqa: S603


def _look_after(process: int, limit: float) -> None:
    """End a worker that has been stopped for so long; return when `process` is gone, and its end of standard input.

    Looks are counted, and not time, which goes on where all are stopped.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's
    own, others = _Looks(limit), _Looks(limit / _LOOKS_ABOUT)
    for look in count(1):
        if select.select([sys.stdin], [], [], _LOOK)[0]:
            return
        own.look({process})
        if look % _LOOKS_ABOUT == 0:
            others.look(_others(process))


class _Looks:
    """Counts of how often in a row each process was found stopped; one found so too often is ended."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._found: dict[int, int] = {}

    def look(self, processes: set[int]) -> None:
        self._found = {pid: self._found.get(pid, 0) + 1 for pid in processes if is_stopped(pid)}
        for pid in (pid for pid, looks in self._found.items() if looks * _LOOK >= self._most):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _others(process: int) -> set[int]:
    """Other processes that the parent of this one has started for the same: they may not have come to a first task."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    mine = _parent_and_program(process)
    return {pid for pid in pids if mine and pid != process and _parent_and_program(pid) == mine}


def _parent_and_program(process: int) -> tuple[bytes, list[bytes]] | None:
    """None where the process is gone; nobody's orphans belong together."""
    try:
        parent, command = _stat(process)[1], Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except (OSError, IndexError):
        return None
    return None if parent == b"1" else (parent, command[:3])


def _stat(process: int) -> list[bytes]:
    """Return what the system tells of a process after its name: the state, the parent, and more."""
    return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()


if __name__ == "__main__":
    _look_after(int(sys.argv[1]), float(sys.argv[2]))
