"""Files that appear whole: written under a private name, then renamed. Transient errors are retried."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mission9.errors import StorageError
from mission9.storage.retry import retry

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

Found = TypeVar("Found")

_LIBC = ctypes.CDLL(None, use_errno=True)

# Transient errors, of slow or flaky file systems. After any other error a retry would fail in the same way.
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EAGAIN", "EINTR", "EBUSY", "ETIMEDOUT", "ESTALE", "EREMOTEIO", "ENOTCONN"),
        *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    )
)

# Seconds before each retry.
_WAITS = (0.05, 0.2, 0.8, 3.2)

# True if the last call failed after all its retries.
_failed_before = threading.Event()


def is_transient(error: OSError) -> bool:
    """Return True if the operation may succeed a moment later."""
    return error.errno in _PASSING


def retry_io(work: Callable[[], Found]) -> Found:
    """Call `work`, retrying transient OS errors up to four times in about 5 s.

    After a call that exhausted its retries, none is retried until one succeeds: a dead file system must not cost
    seconds for each of its files.
    """
    try:
        found = retry(work, _is_worth_a_try, _WAITS)
    except OSError as error:
        if is_transient(error):
            _failed_before.set()
        raise
    _failed_before.clear()
    return found


def _is_worth_a_try(error: Exception) -> bool:
    return isinstance(error, OSError) and is_transient(error) and not _failed_before.is_set()


@contextmanager
def naming(path: Path | bytes | str) -> Iterator[None]:
    """Add the file's name to an OS error that lacks one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:  # without an errno, a name would hide the message
            error.filename = os.fsdecode(path)
        raise


class _PatientFile(io.FileIO):
    """A file whose reads and writes are retried; its errors name it."""

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        with naming(self.name):
            return retry_io(partial(super().readinto, buffer))

    def write(self, data: ReadableBuffer, /) -> int:
        with naming(self.name):
            return retry_io(partial(super().write, data))


def open_to_read(path: Path) -> io.BufferedReader:
    """The file, opened for reading with retries."""
    return io.BufferedReader(retry_io(lambda: _PatientFile(os.fspath(path), "rb")), 1 << 18)


def open_to_write(path: Path) -> io.BufferedWriter:
    """A new file, opened for writing with retries."""
    return io.BufferedWriter(retry_io(lambda: _PatientFile(os.fspath(path), "wb")), 1 << 18)


def read_whole(path: Path) -> bytes:
    """A file's content."""
    with naming(path):
        return retry_io(path.read_bytes)


def files_in(folder: Path) -> list[Path]:
    """List the entries of a folder, unsorted."""
    return retry_io(lambda: list(folder.iterdir()))


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, unsorted, without those under private names."""
    for path in files_in(folder):  # pathlib's walk skips unreadable folders
        if not path.name.startswith("."):
            yield from files_below(path) if path.is_dir() else (path,)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, if absent."""
    retry_io(lambda: folder.mkdir(parents=True, exist_ok=True))


def remove_file(file: Path) -> None:
    """Delete a file, if there is one."""
    retry_io(lambda: file.unlink(missing_ok=True))


def private_name(path: Path) -> Path:
    """A unique name in the folder of `path`, hidden from its readers."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with open_to_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically: it is durable and complete, or absent."""

    def write() -> None:
        with atomic_path(path) as whole, open_to_write(whole) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    # Restart from the beginning: a successful fsync after a failed one says nothing about the earlier writes.
    retry_io(write)


def sync_file_system(folder: Path) -> None:
    """Wait until everything written to the file system of a folder is on its disk, names and folders too.

    One call for any number of files: after a power cut, no later file refers to a missing one.

    Raises:
        StorageError: the disk failed to store something. A retry would not reveal it.
    """
    number = retry_io(lambda: os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    try:
        if _LIBC.syncfs(number):
            told = os.strerror(ctypes.get_errno())
            raise StorageError(
                f"the disk of {folder} failed to store its data: {told}; check the disk, then rerun the same command"
            )
    finally:
        os.close(number)


def replace_folder(new: Path, final: Path, *, trash: Path) -> None:
    """Replace the folder `final` by `new`; the old one moves to `trash`."""
    discard(final, trash=trash)
    retry_io(lambda: new.rename(final))


def discard(folder: Path, *, trash: Path) -> None:
    """Move a folder, if it exists, to `trash`: deletion may be slow."""
    if folder.exists():
        make_folder(trash)
        retry_io(lambda: folder.rename(trash / f"{folder.name}.{uuid.uuid4().hex[:12]}"))


def remove_folder(path: Path) -> None:
    """Delete a folder and its contents, if it exists."""

    def remove() -> None:
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            shutil.rmtree(path)  # raises the reason

    retry_io(remove)


def link_or_copy(source: Path, target: Path) -> None:
    """Make the content available under a second name, by a hard link where possible, else by a copy."""
    try:
        retry_io(lambda: os.link(source, target))
    except OSError:
        with open_to_read(source) as old, open_to_write(target) as new:
            shutil.copyfileobj(old, new)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A private name to write to, renamed to `path` on success."""
    whole = private_name(path)
    try:
        with naming(path):
            yield whole
            retry_io(lambda: whole.replace(path))
    except OSError as error:
        if error.filename == str(whole):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # must not hide the original error; the next run deletes the file
            remove_file(whole)
