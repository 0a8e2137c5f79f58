"""The lease of a prefix: an object that names its writer and expires soon after that writer dies.

The holder creates it only if absent (`If-None-Match: *`) and renews it while it lives. Its age is measured by the
server's clock alone. A lease that is too old, or whose holder was a process of this machine that has ended, is taken
over: deleted and created again. (Not all servers support replacing only the object that was read, `If-Match`.) The new
holder checks it again a moment later, since another process may have done the same, then at each renewal, and before it
publishes a result. A server that ignores `If-None-Match` would grant a held lease to any process, so each server is
first tested with an object of its own.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mission9.concurrency.background import background_thread, run_with_deadline
from mission9.errors import Mission9Error, OutputError, StorageError
from mission9.storage.local.untrusted import MIB
from mission9.storage.s3.address import Address
from mission9.storage.s3.objects import delete, get_or_none, head, is_unknown, put, put_new

logger = logging.getLogger(__name__)

LEASE = 60.0  # seconds after its last renewal until a lock expires
_RENEW_EVERY = 15.0
_SETTLE = 1.0  # seconds for a competing process to finish creating the lock, or deleting the same expired one

_TRIES = 5


def _clock() -> float:
    """Seconds on a clock that also counts while the machine is suspended, since the lock ages for others then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass
class Lease:
    """A lock of a prefix that is held; `token` is unique to it."""

    address: Address
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    since: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S"))
    renewed: float = field(default_factory=_clock)
    lost: str = ""

    def check(self) -> None:
        """Check that this run still holds the lock.

        Raises:
            StorageError: this run has lost it, so another run may be writing.
        """
        if not self.lost and _clock() - self.renewed > LEASE:
            self.renew()
        if self.lost:
            raise StorageError(f"this run has lost the lock {self.address} ({self.lost}): rerun the same command")

    def renew(self) -> None:
        """Renew the lock, and record its loss if another process has taken it."""
        asked = _clock()
        holder = _holder(self.address)
        if holder.get("token") == self.token:
            put(self.address, self.content())
            self.renewed = asked
        else:
            self.lost = f"{_name(holder)} holds it" if holder else "it was deleted"

    def content(self) -> bytes:
        """The lock's content, which identifies its holder."""
        me = {"host": socket.gethostname(), "pid": os.getpid(), "since": self.since}
        return json.dumps({**me, "process": _process(os.getpid()), "token": self.token}).encode()

    def release(self) -> None:
        """Delete the lock, so that others can write."""
        if _holder(self.address).get("token") == self.token:
            delete([self.address])


@contextmanager
def leased(address: Address) -> Iterator[Lease]:
    """Take the lock at an address, and hold it until the context ends.

    Raises:
        OutputError: another run holds it, it cannot be written, or the server does not support locks.
    """
    check_server(address.parent)
    lease = Lease(address)
    _acquire(lease)
    try:
        with background_thread(partial(_keep, lease)):
            yield lease
    except BaseException:
        run_with_deadline(lease.release)  # the lock expires by itself
        raise
    with suppress(Mission9Error):
        lease.release()


def check_server(folder: Address) -> None:
    """Check that a server refuses to overwrite with `If-None-Match: *`, using an object of this call's own.

    Raises:
        OutputError: the server overwrites it, or the object cannot be written.
    """
    probe = folder / f"probe-{uuid.uuid4().hex}"
    try:
        put_new(probe, b"first", OutputError)
        is_kept = not put_new(probe, b"second", OutputError) and get_or_none(probe, MIB) == b"first"
    except OutputError as error:
        if not is_unknown(error):
            raise
        is_kept = False
    finally:
        with suppress(Mission9Error):
            delete([probe])
    if not is_kept:
        raise OutputError(
            f"the server of {folder.parent} ignores If-None-Match: *, so two runs could corrupt the result: pass an "
            "--output on Amazon S3 or in a folder"
        )


def _keep(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_EVERY) and not lease.lost:
        try:
            lease.renew()
        except Mission9Error as error:
            logger.warning("failed to renew the lock: %s", error)


def _acquire(lease: Lease) -> None:
    holder: dict[str, Any] = {}
    for _ in range(_TRIES):
        if _made(lease):
            return
        holder = _holder(lease.address)
        if holder.get("token") == lease.token:  # an answer was lost, and the request was retried
            return
        age = _age(lease.address)
        if age is None:
            continue  # the holder has just released it
        if not _is_over(holder, age):
            break
        if _taken_over(lease, holder):
            return
    left = f"; if it was killed, its lock expires within {LEASE:.0f} seconds" if holder else ""
    raise OutputError(
        f"another run is writing to {lease.address.parent.parent}: {_name(holder)}; wait for it, or end it{left}"
    )


def _taken_over(lease: Lease, old: dict[str, Any]) -> bool:
    """Replace an expired lock by this run's; return False if another process was faster."""
    logger.info("taking over the expired lock of %s", _name(old))
    if _holder(lease.address) != old:
        return False
    delete([lease.address])
    return _made(lease)


def _made(lease: Lease) -> bool:
    """Create the lock if absent; return True if this run still holds it a moment later.

    Some servers accept two simultaneous requests as the first, and keep the content of the last.
    """
    if not put_new(lease.address, lease.content(), OutputError):
        return False
    time.sleep(_SETTLE)
    return _holder(lease.address).get("token") == lease.token


def _holder(address: Address) -> dict[str, Any]:
    """The content of a lock; empty if it is absent or unreadable."""
    content = get_or_none(address, MIB)
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _age(address: Address) -> float | None:
    """Seconds since a lock was last written, by the server's clock; None if it is absent."""
    lock = head(address)
    if lock is None:
        return None
    clock = address.parent / f"clock-{uuid.uuid4().hex}"
    put(clock, b"")
    try:
        now = head(clock)
    finally:
        delete([clock])
    return None if now is None else (now.modified - lock.modified).total_seconds()


def _is_over(holder: dict[str, Any], age: float) -> bool:
    if age > LEASE:
        return True
    process = str(holder.get("process", ""))
    machine, _, number = process.rpartition(":")
    own = _process(os.getpid()).rpartition(":")[0]
    # On this very machine and container, the process itself can be checked.
    return machine.rpartition(":")[0] == own.rpartition(":")[0] and bool(number) and not _is_running(process)


def _process(pid: int) -> str:
    """Identify a process across machines: by boot, container, pid and start time."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if facts[0] != "Z":  # a zombie: ended, not yet reaped
            return f"{boot}:{os.readlink('/proc/self/ns/pid')}:{pid}:{facts[19]}"
    return ""


def _is_running(process: str) -> bool:
    pid = process.split(":")[-2]
    return pid.isdigit() and _process(int(pid)) == process


def _name(holder: dict[str, Any]) -> str:
    told = {name: holder.get(name) for name in ("host", "pid", "since")}
    return json.dumps(told) if holder else "an unidentified process"
