"""A file in a folder that one process at a time holds; the system lets go of it when that process ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import TextIO

from mission9.errors import OutputError
from mission9.storage.local.files import make_folder, naming, retry_io

# What flock says where a file system has no locks, as NFS without its lock service.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})

_SAY_WHO = 2.0  # seconds for one that has just taken a lock to say who it is


def take_lock(file: Path, refused: str) -> TextIO:
    """The lock, held until the file is closed; its folder is made if need be.

    Raises:
        OutputError: another holds it: `refused`, and who that is; or there are no locks.
        OSError: it cannot be written.
    """
    return retry_io(lambda: _take(file, refused))


def wait_for_lock(file: Path) -> TextIO:
    """The lock, as soon as no other holds it.

    Raises:
        OutputError: there are no locks.
        OSError: it cannot be written.
    """
    while True:
        make_folder(file.parent)
        lock = file.open("a")
        try:
            lock_file(lock.fileno(), fcntl.LOCK_EX, file.parent)
            if _is_at(lock, file):
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()  # somebody took the folder away meanwhile


def lock_file(file: int, how: int, folder: Path) -> None:
    """`flock` of an open file in a folder.

    Raises:
        OutputError: its file system has no locks.
        OSError: another holds it, or it cannot be locked for another reason.
    """
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise OutputError(
            f"the file system of {folder} gives no locks ({os.strerror(error.errno or 0)}), without which two runs "
            "would mix: mount it with locks (NFS: version 4, or without nolock), or give a folder on another"
        ) from error


def is_held(file: Path) -> bool:
    """Return whether a process of this machine holds the lock, without taking it."""
    try:
        facts = os.stat(file)
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    return any(place in line.split() and "->" not in line for line in locks.splitlines())


def sign(lock: TextIO) -> None:
    """Say in the lock who holds it."""
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}

    def write() -> None:
        lock.truncate(0)
        os.write(lock.fileno(), json.dumps(holder).encode())

    with naming(lock.name):
        retry_io(write)


def _take(file: Path, refused: str) -> TextIO:
    while True:
        make_folder(file.parent)
        lock = file.open("a+", errors="replace")
        try:
            lock_file(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, file.parent)
            if _is_at(lock, file):
                return lock
        except BlockingIOError as error:
            with lock:
                raise OutputError(f"{refused}: {_holder(lock)}; wait for it, or end it") from error
        except BaseException:
            lock.close()
            raise
        lock.close()  # whoever held it found its request impossible, and took the folder away


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(lock: TextIO) -> str:
    """Read what the holder of the lock says of itself; one that has just taken it is given a moment to say it."""
    deadline = time.monotonic() + _SAY_WHO
    while True:
        lock.seek(0)
        text = lock.read()
        if _may_hold(text) or time.monotonic() > deadline:
            return text or "just started"
        time.sleep(0.02)


def _may_hold(text: str) -> bool:
    """Tell whether what the lock says is of a process that may still be there, and not of one that was killed."""
    try:
        holder = json.loads(text)
        return holder["host"] != socket.gethostname() or Path(f"/proc/{holder['pid']}").exists()
    except (ValueError, KeyError, TypeError):
        return False
