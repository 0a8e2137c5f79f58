"""Files that appear whole: written under a private name, then renamed; with patience for what falters."""

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

# What a file system says that is slow, or fails now and then; after anything else another try would end in the same.
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EAGAIN", "EINTR", "EBUSY", "ETIMEDOUT", "ESTALE", "EREMOTEIO", "ENOTCONN"),
        *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    )
)

# Seconds before the tries after the first.
_WAITS = (0.05, 0.2, 0.8, 3.2)

# Whether the last that was tried so often failed all the same.
_failed_before = threading.Event()


def is_transient(error: OSError) -> bool:
    """Tell whether what failed may go well a moment later."""
    return error.errno in _PASSING


def retry_io(work: Callable[[], Found]) -> Found:
    """Call `work`, and try again where it fails for a passing reason: up to four times within 5 seconds.

    After one that failed all the same there is no waiting until something succeeds: a file system that is gone must
    not cost seconds for each of its files.
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
    """Give an error of the system the name of the file it is about, where it does not say."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:  # others have words of their own, which a name hides
            error.filename = os.fsdecode(path)
        raise


class _PatientFile(io.FileIO):
    """A file whose reads and writes are each tried again; their errors name it."""

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        with naming(self.name):
            return retry_io(partial(super().readinto, buffer))

    def write(self, data: ReadableBuffer, /) -> int:
        with naming(self.name):
            return retry_io(partial(super().write, data))


def open_to_read(path: Path) -> io.BufferedReader:
    """The file, to be read patiently."""
    return io.BufferedReader(retry_io(lambda: _PatientFile(os.fspath(path), "rb")), 1 << 18)


def open_to_write(path: Path) -> io.BufferedWriter:
    """A new file, to be written patiently."""
    return io.BufferedWriter(retry_io(lambda: _PatientFile(os.fspath(path), "wb")), 1 << 18)


def read_whole(path: Path) -> bytes:
    """A file's content."""
    with naming(path):
        return retry_io(path.read_bytes)


def files_in(folder: Path) -> list[Path]:
    """Return what lies in a folder, in no order."""
    return retry_io(lambda: list(folder.iterdir()))


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and in those that lie in it, in no order; not those under private names."""
    for path in files_in(folder):  # pathlib's own way down passes over what it cannot read
        if not path.name.startswith("."):
            yield from files_below(path) if path.is_dir() else (path,)


def make_folder(folder: Path) -> None:
    """A folder, with those that it lies in; it may be there."""
    retry_io(lambda: folder.mkdir(parents=True, exist_ok=True))


def remove_file(file: Path) -> None:
    """Delete a file, if there is one."""
    retry_io(lambda: file.unlink(missing_ok=True))


def private_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses, hidden from readers of the folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with open_to_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, on the disk, or not at all."""

    def write() -> None:
        with atomic_path(path) as whole, open_to_write(whole) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    # Anew from the beginning: after an fsync that failed, one that succeeds says nothing of what was written before.
    retry_io(write)


def sync_file_system(folder: Path) -> None:
    """Wait until all that was written to the file system of a folder is on its disk, names and folders too.

    One call, however many files: after a power cut, what is written next names nothing that is not there.

    Raises:
        StorageError: something is not; another try would not tell.
    """
    number = retry_io(lambda: os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    try:
        if _LIBC.syncfs(number):
            told = os.strerror(ctypes.get_errno())
            raise StorageError(
                f"the disk of {folder} failed to store what was written: {told}; check the disk, then give the same "
                "command again"
            )
    finally:
        os.close(number)


def replace_folder(new: Path, final: Path, *, trash: Path) -> None:
    """Put the folder `new` in the place of `final`; what was there goes to `trash`."""
    discard(final, trash=trash)
    retry_io(lambda: new.rename(final))


def discard(folder: Path, *, trash: Path) -> None:
    """Move a folder to `trash`, if it is there: deleting it may take long."""
    if folder.exists():
        make_folder(trash)
        retry_io(lambda: folder.rename(trash / f"{folder.name}.{uuid.uuid4().hex[:12]}"))


def remove_folder(path: Path) -> None:
    """Delete a folder with what is in it, if there is one."""

    def remove() -> None:
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            shutil.rmtree(path)  # says why not

    retry_io(remove)


def link_or_copy(source: Path, target: Path) -> None:
    """The same content under a second name, without a copy where the file system can."""
    try:
        retry_io(lambda: os.link(source, target))
    except OSError:
        with open_to_read(source) as old, open_to_write(target) as new:
            shutil.copyfileobj(old, new)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A private name to write to, which becomes `path` when that went well."""
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
        with suppress(OSError):  # it must not hide what went wrong; the next run clears it away
            remove_file(whole)
