"""Hold a prefix: an object names its writer, and is out of date soon after that writer is gone.

It is made where there is none (`If-None-Match: *`), and renewed while its holder lives. Its age is told by the server's
clock alone. One that is too old, or whose holder was a process of this machine that is gone, is taken over: it is
deleted and made anew. (Not all servers can replace an object only if it is the one that was seen, `If-Match`.) Whoever
made it looks again a moment later, since another may have done the same, then with each renewal, and before it shows a
result. A server that takes no notice of `If-None-Match` would give a lock that somebody holds to whoever comes: each is
tried first, on an object of its own.
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

LEASE = 60.0  # seconds after its last renewal that a lock holds
_RENEW_EVERY = 15.0
_SETTLE = 1.0  # seconds for another that makes the lock, or deletes the same old one, to be done with it

_TRIES = 5


def _clock() -> float:
    """Seconds that have passed, also those in which the machine slept and others saw the lock grow old."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass
class Lease:
    """The lock of a prefix, held; `token` is in no other."""

    address: Address
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    since: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S"))
    renewed: float = field(default_factory=_clock)
    lost: str = ""

    def check(self) -> None:
        """Make sure that the lock still is this run's.

        Raises:
            StorageError: another run may write by now.
        """
        if not self.lost and _clock() - self.renewed > LEASE:
            self.renew()
        if self.lost:
            raise StorageError(f"{self.address} is not this run's any more ({self.lost}): give the same command again")

    def renew(self) -> None:
        """Say that this run still lives; notice where another has taken the lock."""
        asked = _clock()
        holder = _holder(self.address)
        if holder.get("token") == self.token:
            put(self.address, self.content())
            self.renewed = asked
        else:
            self.lost = f"{_name(holder)} holds it" if holder else "it was deleted"

    def content(self) -> bytes:
        """Return what the lock says of its holder."""
        me = {"host": socket.gethostname(), "pid": os.getpid(), "since": self.since}
        return json.dumps({**me, "process": _process(os.getpid()), "token": self.token}).encode()

    def release(self) -> None:
        """Let others write."""
        if _holder(self.address).get("token") == self.token:
            delete([self.address])


@contextmanager
def leased(address: Address) -> Iterator[Lease]:
    """The lock at an address, held until the end of the context.

    Raises:
        OutputError: another run holds it, it cannot be written, or the server can keep no lock.
    """
    check_server(address.parent)
    lease = Lease(address)
    _acquire(lease)
    try:
        with background_thread(partial(_keep, lease)):
            yield lease
    except BaseException:
        run_with_deadline(lease.release)  # it ends by itself
        raise
    with suppress(Mission9Error):
        lease.release()


def check_server(folder: Address) -> None:
    """Make sure that a server refuses to make an object where there is one, by an object of this call's own.

    Raises:
        OutputError: it does not, or the object cannot be written.
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
            f"the server of {folder.parent} takes no notice of If-None-Match: *, by which runs keep out of each "
            "other's way: two could write there at once, and spoil the result. Give an --output on a server that does "
            "(Amazon's S3 does), or a folder"
        )


def _keep(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_EVERY) and not lease.lost:
        try:
            lease.renew()
        except Mission9Error as error:
            logger.warning("the lock cannot be renewed: %s", error)


def _acquire(lease: Lease) -> None:
    holder: dict[str, Any] = {}
    for _ in range(_TRIES):
        if _made(lease):
            return
        holder = _holder(lease.address)
        if holder.get("token") == lease.token:  # an answer was lost, and the request made again
            return
        age = _age(lease.address)
        if age is None:
            continue  # whoever held it has just let go
        if not _is_over(holder, age):
            break
        if _taken_over(lease, holder):
            return
    left = f"; if it was killed, its lock ends within {LEASE:.0f} seconds" if holder else ""
    raise OutputError(
        f"another run is writing {lease.address.parent.parent}: {_name(holder)}; wait for it, or end it{left}"
    )


def _taken_over(lease: Lease, old: dict[str, Any]) -> bool:
    """Put this run's lock in the place of one that is out of date; whether no other was faster."""
    logger.info("the lock of %s is out of date, and taken over", _name(old))
    if _holder(lease.address) != old:
        return False
    delete([lease.address])
    return _made(lease)


def _made(lease: Lease) -> bool:
    """Make the lock where there is none; whether it is this run's a moment later.

    Some servers tell two that come at once that there was none, and keep what the last of them has written.
    """
    if not put_new(lease.address, lease.content(), OutputError):
        return False
    time.sleep(_SETTLE)
    return _holder(lease.address).get("token") == lease.token


def _holder(address: Address) -> dict[str, Any]:
    """Return what a lock says; empty where there is none, or it says nothing."""
    content = get_or_none(address, MIB)
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _age(address: Address) -> float | None:
    """Seconds since a lock was last written, by the server's clock; None where there is none."""
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
    # Of this very machine and container: whether the process is there can be seen.
    return machine.rpartition(":")[0] == own.rpartition(":")[0] and bool(number) and not _is_there(process)


def _process(pid: int) -> str:
    """Name a process among all of all machines: by the start of the machine, its container, pid and own start."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if facts[0] != "Z":  # dead, and nobody has asked how it ended
            return f"{boot}:{os.readlink('/proc/self/ns/pid')}:{pid}:{facts[19]}"
    return ""


def _is_there(process: str) -> bool:
    pid = process.split(":")[-2]
    return pid.isdigit() and _process(int(pid)) == process


def _name(holder: dict[str, Any]) -> str:
    told = {name: holder.get(name) for name in ("host", "pid", "since")}
    return json.dumps(told) if holder else "one that does not say who it is"
