"""Files by name below a place, in a folder or in a bucket: the one port used by packs and outputs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol

from mission9.concurrency.prefetch import LOCAL, REMOTE, PrefetchLimits
from mission9.errors import ConfigError, Mission9Error, OutputError
from mission9.storage.local.files import (
    atomic_path,
    files_in,
    make_folder,
    open_to_read,
    remove_file,
    remove_folder,
    retry_io,
    sync_file_system,
    write_atomic,
)
from mission9.storage.local.lock import sign, take_lock
from mission9.storage.local.scratch import scratch_folder
from mission9.storage.local.untrusted import MIB, read_file
from mission9.storage.location import is_url, without_file
from mission9.storage.s3.address import Address, is_s3

MAX_BYTES = 256 * MIB  # of a file read as a whole, unless its reader passes a lower limit

# Raises `StorageError` if a lock was lost.
CheckLock = Callable[[], None]


class FileStore(Protocol):
    """Files by name below a place; each appears whole. Picklable, for workers.

    `ahead` is the number of reads to keep in flight.
    """

    ahead: ClassVar[PrefetchLimits]

    def __str__(self) -> str: ...

    def check(self) -> None:
        """Refuse a place that cannot hold files.

        Raises:
            OutputError: it is a file, or the top of a bucket.
        """

    def lock(self, name: str) -> AbstractContextManager[CheckLock]:
        """Take the exclusive write lock, a file of that name.

        Raises:
            OutputError: another process is writing, or the place is not writable.
        """

    def names(self, folder: str) -> list[str]:
        """The sorted names of the files and folders directly in a folder, without hidden ones."""

    def sizes(self, folder: str) -> dict[str, int]:
        """The files below a folder by name, with their sizes in bytes."""

    def has(self, name: str) -> bool:
        """Return True if there is a file of that name."""

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes | None:
        """The content of a file; None if there is none."""

    def read_range(self, name: str, at: int, length: int) -> bytes:
        """A byte range of a file, shorter at the end of the file."""

    def open(self, name: str) -> IO[bytes]:
        """A seekable file to read."""

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A local file to write to, which replaces the stored one when the context ends."""

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file."""

    def remove(self, names: Collection[str]) -> None: ...

    def sweep(self, folders: Iterable[str], partial: re.Pattern[str]) -> None:
        """Delete the partial files of killed writers in some folders; `partial` matches their names."""

    def sync(self) -> None:
        """Wait until everything written is durable."""


def file_store(place: str) -> FileStore:
    """The store of a folder, or of a prefix of a bucket.

    Raises:
        ConfigError: it is a URL of an unsupported store, or not valid.
    """
    place = without_file(place)
    if is_url(place):
        raise ConfigError(f"{place}: pass a local folder or an s3:// URL")
    return BucketStore(Address.of(place)) if is_s3(place) else FolderStore(Path(place).absolute())


def is_file(place: str, kind: type[Mission9Error]) -> bool:
    """Return True if a place, on a disk or in a bucket, is a file.

    Raises:
        Mission9Error: (`kind`) the bucket does not answer.
    """
    if not is_s3(place):
        return Path(place).is_file()
    from mission9.storage.s3.objects import head  # not always needed

    return head(Address.of(place), kind) is not None


def read_place(place: str, max_bytes: int, kind: type[Mission9Error]) -> bytes:
    """The content of a file or of an object.

    Raises:
        Mission9Error: (`kind`) it cannot be read, or is larger than `max_bytes`.
    """
    if is_s3(place):
        from mission9.storage.s3.objects import get

        return get(Address.of(place), max_bytes, kind)
    try:
        return read_file(Path(place), max_bytes)
    except OSError as error:
        raise kind(f"{place} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise kind(f"{place} cannot be used: {error}") from error


def is_missing(error: Exception) -> bool:
    """Return True if an error of a store means that there is no such file."""
    if isinstance(error, Mission9Error):
        from mission9.storage.s3.objects import is_gone  # loaded already: the error came from a bucket

        return is_gone(error)
    return isinstance(error, FileNotFoundError)


@dataclass(frozen=True)
class FolderStore:
    """The files of a folder."""

    root: Path
    ahead: ClassVar[PrefetchLimits] = LOCAL

    def __str__(self) -> str:
        return str(self.root)

    def check(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise OutputError(f"the output {self.root} is a file: pass a folder with --output")

    @contextmanager
    def lock(self, name: str) -> Iterator[CheckLock]:
        file = self.root / name
        try:
            was_there = [folder for folder in (self.root, file.parent) if folder.exists()]
            lock = take_lock(file, f"another process is writing to {self.root}")
        except OSError as error:
            raise OutputError(f"the folder {self.root} cannot be written: {error.strerror}; pass another") from error
        with lock:
            sign(lock)
            try:
                yield lambda: None  # the system never releases a lock that is held
            finally:
                for folder in (file.parent, self.root):
                    if folder not in was_there and os.listdir(folder) in ([file.name], []):
                        remove_folder(folder)

    def names(self, folder: str) -> list[str]:
        place = self.root / folder
        return sorted(file.name for file in files_in(place) if file.name[0] != ".") if place.is_dir() else []

    def sweep(self, folders: Iterable[str], partial: re.Pattern[str]) -> None:
        for folder in (self.root / name for name in folders):
            for file in files_in(folder) if folder.is_dir() else ():
                if partial.fullmatch(file.name):
                    remove_file(file)

    def sizes(self, folder: str) -> dict[str, int]:
        return {name: (self.root / folder / name).stat().st_size for name in self.names(folder)}

    def has(self, name: str) -> bool:
        return (self.root / name).is_file()

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes | None:
        file = self.root / name
        return read_file(file, max_bytes) if file.is_file() else None

    def read_range(self, name: str, at: int, length: int) -> bytes:
        def read() -> bytes:
            with (self.root / name).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, at)

        return retry_io(read)

    def open(self, name: str) -> IO[bytes]:
        return open_to_read(self.root / name)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        file = self.root / name
        make_folder(file.parent)
        with atomic_path(file) as whole:
            yield whole
            with whole.open("rb") as written:
                os.fsync(written.fileno())

    def write(self, name: str, content: bytes) -> None:
        make_folder((self.root / name).parent)
        write_atomic(self.root / name, content)

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            remove_file(self.root / name)

    def sync(self) -> None:
        sync_file_system(self.root)


@dataclass(frozen=True)
class BucketStore:
    """The objects below a prefix of a bucket."""

    root: Address
    ahead: ClassVar[PrefetchLimits] = REMOTE

    def __str__(self) -> str:
        return str(self.root)

    def check(self) -> None:
        if not self.root.key:
            raise OutputError(f"the output cannot be the top of {self.root}: pass {self.root}/PREFIX")

    @contextmanager
    def lock(self, name: str) -> Iterator[CheckLock]:
        from mission9.storage.s3.lease import leased

        with leased(self.root / name) as lease:
            yield lease.check

    def names(self, folder: str) -> list[str]:
        from mission9.storage.s3.listing import list_level

        place = self.root / folder if folder else self.root
        objects, prefixes = list_level(place, OutputError)
        found = (*(place.relative(there.key) for there in objects), *(prefix.name for prefix in prefixes))
        return sorted(filter(None, found))

    def sizes(self, folder: str) -> dict[str, int]:
        from mission9.storage.s3.listing import list_below

        place = self.root / folder
        return {place.relative(found.key): found.size for page in list_below(place) for found in page}

    def has(self, name: str) -> bool:
        from mission9.storage.s3.objects import head

        return head(self.root / name) is not None

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes | None:
        from mission9.storage.s3.objects import get_or_none

        return get_or_none(self.root / name, max_bytes)

    def read_range(self, name: str, at: int, length: int) -> bytes:
        from mission9.storage.s3.range_reader import get_range

        return get_range(self.root / name, at, length)

    def open(self, name: str) -> IO[bytes]:
        from mission9.storage.s3.range_reader import RangeReader

        reader: Any = RangeReader(self.root / name)
        return reader  # type: ignore[no-any-return]

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        from mission9.storage.s3.objects import put

        with scratch_folder() as scratch:
            file = scratch / "file"
            yield file
            put(self.root / name, file)

    def write(self, name: str, content: bytes) -> None:
        from mission9.storage.s3.objects import put

        put(self.root / name, content)

    def remove(self, names: Collection[str]) -> None:
        from mission9.storage.s3.objects import delete

        delete([self.root / name for name in names])

    def sweep(self, folders: Iterable[str], partial: re.Pattern[str]) -> None:
        """Do nothing: an object appears whole."""

    def sync(self) -> None:
        """Do nothing: an object is durable once the server has answered."""
