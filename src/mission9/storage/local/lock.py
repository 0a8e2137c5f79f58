"""A lock file in a folder, held by one process at a time; the system releases it when that process ends."""

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

# flock's errors on a file system without locks, such as NFS without its lock service.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})

_SAY_WHO = 2.0  # seconds for a new holder to write its identity


def take_lock(file: Path, refused: str) -> TextIO:
    """Take the lock and hold it until the file is closed. Its folder is created if absent.

    Raises:
        OutputError: another process holds it (`refused`, then the holder), or the file system has no locks.
        OSError: the file cannot be written.
    """
    return retry_io(lambda: _take(file, refused))


def wait_for_lock(file: Path) -> TextIO:
    """Wait for the lock, and take it.

    Raises:
        OutputError: the file system has no locks.
        OSError: the file cannot be written.
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
        lock.close()  # another process deleted the folder in between


def lock_file(file: int, how: int, folder: Path) -> None:
    """Call `flock` on an open file in a folder.

    Raises:
        OutputError: the file system has no locks.
        OSError: another process holds the lock, or locking failed for another reason.
    """
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise OutputError(
            f"the file system of {folder} has no locks ({os.strerror(error.errno or 0)}), which keep two runs "
            "apart: remount it with locks (NFS 4), or pass another folder"
        ) from error


def is_held(file: Path) -> bool:
    """Return True if a process of this machine holds the lock, without taking it."""
    try:
        facts = os.stat(file)
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    return any(place in line.split() and "->" not in line for line in locks.splitlines())


def sign(lock: TextIO) -> None:
    """Write the identity of the holder into the lock."""
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
        lock.close()  # the previous holder refused its request, and deleted the folder


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(lock: TextIO) -> str:
    """Read the holder's identity from the lock, waiting a moment for a new holder to write it."""
    deadline = time.monotonic() + _SAY_WHO
    while True:
        lock.seek(0)
        text = lock.read()
        if _may_hold(text) or time.monotonic() > deadline:
            return text or "just started"
        time.sleep(0.02)


def _may_hold(text: str) -> bool:
    """Return True if the process named in the lock may still be running."""
    try:
        holder = json.loads(text)
        return holder["host"] != socket.gethostname() or Path(f"/proc/{holder['pid']}").exists()
    except (ValueError, KeyError, TypeError):
        return False
