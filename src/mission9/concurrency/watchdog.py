"""End worker processes that hang or are stopped, so that another worker retries their tasks.

A task without progress for a long time hangs, and a timer in its own process ends it. A stopped process has no timers:
a small child process checks it each second, and occasionally the other children of its parent. Both apply only to
worker processes, which a runner replaces; a signal that stops a whole run, such as Ctrl-Z, stops the child too.
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

_LOOK = 1.0  # seconds between checks of a process
_LOOKS_ABOUT = 10  # checks between those of the parent's other children, of which the system keeps no list


@dataclass(frozen=True)
class Patience:
    """Seconds until a worker is ended that shows no progress, or that is stopped."""

    hang: float = 300.0
    stop: float = 30.0


PATIENCE = Patience()


class _Alarm:
    """The timer that ends this process; a limit of 0 between tasks."""

    limit = 0.0
    set_at = 0.0
    lock = threading.Lock()


@contextmanager
def watched(patience: Patience) -> Iterator[None]:
    """Run a task in a worker process, ended if the task hangs. Not for a user's own process."""
    look_after(os.getpid(), patience.stop)
    limit_hangs(patience.hang)
    try:
        yield
    finally:
        limit_hangs(0.0)


def limit_hangs(seconds: float) -> None:
    """End this process after so many seconds without progress; 0 ends the limit."""
    with _Alarm.lock:
        _Alarm.limit, _Alarm.set_at = seconds, 0.0
        if not seconds:
            faulthandler.cancel_dump_traceback_later()
    progress()


def progress() -> None:
    """Report progress on the task; thread-safe, and cheap enough to call often."""
    if not _Alarm.limit or time.monotonic() - _Alarm.set_at < min(_LOOK, _Alarm.limit / 10):
        return
    with _Alarm.lock:
        if _Alarm.limit:
            _Alarm.set_at = time.monotonic()
            # Written in C, it works even if Python hangs, and reports the position.
            faulthandler.dump_traceback_later(_Alarm.limit, exit=True, file=2)


def is_stopped(process: int) -> bool:
    """Return True if a signal has stopped a process; one held by a debugger does not count."""
    try:
        return _stat(process)[0] == b"T"
    except (OSError, IndexError):
        return False


@cache
def look_after(process: int, limit: float) -> subprocess.Popen[bytes]:
    """Start the child that checks this process; it needs no installed packages, so it starts quickly."""
    command = [sys.executable, "-I", "-S", "-c", inspect.getsource(sys.modules[__name__]), str(process), str(limit)]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing)  # noqa: S603


def _look_after(process: int, limit: float) -> None:
    """End a worker that has been stopped too long; return when `process` or its end of standard input is gone.

    Checks are counted instead of time, which passes while all processes are stopped.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run
    own, others = _Looks(limit), _Looks(limit / _LOOKS_ABOUT)
    for look in count(1):
        if select.select([sys.stdin], [], [], _LOOK)[0]:
            return
        own.look({process})
        if look % _LOOKS_ABOUT == 0:
            others.look(_others(process))


class _Looks:
    """Counts of consecutive checks that found a process stopped; at the limit, it is ended."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._found: dict[int, int] = {}

    def look(self, processes: set[int]) -> None:
        self._found = {pid: self._found.get(pid, 0) + 1 for pid in processes if is_stopped(pid)}
        for pid in (pid for pid, looks in self._found.items() if looks * _LOOK >= self._most):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _others(process: int) -> set[int]:
    """Sibling processes that the parent has started with the same program: their first task may not have begun."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    mine = _parent_and_program(process)
    return {pid for pid in pids if mine and pid != process and _parent_and_program(pid) == mine}


def _parent_and_program(process: int) -> tuple[bytes, list[bytes]] | None:
    """The parent of a process, and its command line; None if it is gone. Orphans do not belong together."""
    try:
        parent, command = _stat(process)[1], Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except (OSError, IndexError):
        return None
    return None if parent == b"1" else (parent, command[:3])


def _stat(process: int) -> list[bytes]:
    """The fields of a process's /proc stat after its name: the state, the parent, and more."""
    return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()


if __name__ == "__main__":
    _look_after(int(sys.argv[1]), float(sys.argv[2]))
