"""What holds the files of a pack: a folder, or a prefix in a bucket."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from mission9.disk.files import (
    appearing,
    files_in,
    make_folder,
    open_to_read,
    patiently,
    remove_file,
    remove_folder,
    sync_file_system,
    write_whole,
)
from mission9.disk.folder_lock import sign, take_lock
from mission9.disk.scratch import scratch_folder
from mission9.disk.untrusted import read_file
from mission9.errors import Mission9Error, OutputError
from mission9.output.folder import REPORT, SHARDS
from mission9.pack.layout import (
    DONE,
    IMAGES,
    INDEX,
    LOCK,
    MANIFEST,
    PARTIAL_NAME,
    PLAN_FILE,
    REJECTS,
    STATE,
)
from mission9.s3.address import Address, is_s3

# By the one a pack is known, finished or not; by the other a result of a run, whose tables a pack would replace. The
# lock of runs is in neither: one that was refused here has left it in a pack, too.
_OF_PACKS = {MANIFEST, PLAN_FILE, LOCK, DONE}
_OF_RESULTS = {REPORT, f"{STATE}/{SHARDS}"}

CheckLock = Callable[[], None]


class Store(Protocol):
    """Files by their names below a place; each appears whole. Travels to workers."""

    def __str__(self) -> str: ...

    def lock(self) -> AbstractContextManager[CheckLock]:
        """Keep others from writing; what is given raises `StorageError` if the lock was lost all the same.

        Raises:
            OutputError: another is writing, or the place holds what is no pack.
        """

    def lengths(self, folder: str) -> dict[str, int]:
        """The files in a folder by name."""

    def get(self, name: str, most: int) -> bytes | None:
        """The content of a file; None if there is none."""

    def read(self, name: str, at: int, length: int) -> bytes:
        """A piece of a file; less where the file ends."""

    def open(self, name: str) -> IO[bytes]:
        """A file to read from here and there."""

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """A file on this machine to write to, which takes its place at the end."""

    def put(self, name: str, content: bytes) -> None: ...

    def remove(self, names: Collection[str]) -> None: ...

    def sync(self) -> None:
        """Wait until all that was written is where no power cut takes it."""


def store_of(place: str) -> Store:
    """What holds the files of a pack, by where it is."""
    return BucketStore(Address.of(place)) if is_s3(place) else FolderStore(Path(place).absolute())


def is_missing(error: Exception) -> bool:
    """Whether what a store raises says that there is no such file."""
    if isinstance(error, Mission9Error):
        from mission9.s3.objects import is_gone  # a bucket's, which is in use already

        return is_gone(error)
    return isinstance(error, FileNotFoundError)


@dataclass(frozen=True)
class FolderStore:
    """A folder."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    @contextmanager
    def lock(self) -> Iterator[CheckLock]:
        try:
            if self.root.exists() and not self.root.is_dir():
                raise OutputError(f"the output {self.root} is a file; give a folder with --output")
            names = _names_in(self.root)
            _check_is_pack({*names, *(f"{STATE}/{name}" for name in _names_in(self.root / STATE))}, str(self.root))
            is_new = not self.root.exists()
            lock = take_lock(self.root / LOCK, f"another is packing into {self.root}")
        except OSError as error:
            raise OutputError(f"the folder {self.root} cannot be written: {error.strerror}; give another") from error
        with lock:
            sign(lock)
            try:
                self._clear_partials()
                yield lambda: None  # the system lets nobody take it
            finally:
                if not names and os.listdir(self.root / STATE) == [Path(LOCK).name]:
                    remove_folder(self.root if is_new else self.root / STATE)

    def _clear_partials(self) -> None:
        """Delete what calls that were killed had begun to write."""
        for folder in (self.root, *(self.root / name for name in (IMAGES, INDEX, REJECTS, STATE, DONE))):
            for file in files_in(folder) if folder.is_dir() else ():
                if PARTIAL_NAME.fullmatch(file.name):
                    remove_file(file)

    def lengths(self, folder: str) -> dict[str, int]:
        place = self.root / folder
        if not place.is_dir():
            return {}
        return {file.name: file.stat().st_size for file in files_in(place) if not file.name.startswith(".")}

    def get(self, name: str, most: int) -> bytes | None:
        file = self.root / name
        return read_file(file, most) if file.exists() else None

    def read(self, name: str, at: int, length: int) -> bytes:
        def read() -> bytes:
            with (self.root / name).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, at)

        return patiently(read)

    def open(self, name: str) -> IO[bytes]:
        return open_to_read(self.root / name)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        file = self.root / name
        make_folder(file.parent)
        with appearing(file) as whole:
            yield whole
            with whole.open("rb") as written:
                os.fsync(written.fileno())

    def put(self, name: str, content: bytes) -> None:
        make_folder((self.root / name).parent)
        write_whole(self.root / name, content)

    def remove(self, names: Collection[str]) -> None:
        for name in names:
            remove_file(self.root / name)

    def sync(self) -> None:
        sync_file_system(self.root)


@dataclass(frozen=True)
class BucketStore:
    """A prefix in a bucket."""

    root: Address

    def __str__(self) -> str:
        return str(self.root)

    @contextmanager
    def lock(self) -> Iterator[CheckLock]:
        from mission9.s3.lease import leased

        if not self.root.key:
            raise OutputError(f"the pack would lie at the top of {self.root}: give {self.root}/PREFIX")
        _check_is_pack(_names_at(self.root) | {f"{STATE}/{name}" for name in _names_at(self.root / STATE)}, str(self))
        with leased(self.root / LOCK) as lease:
            yield lease.check

    def lengths(self, folder: str) -> dict[str, int]:
        from mission9.s3.listings import list_below

        place = self.root / folder
        return {place.relative(found.key): found.size for page in list_below(place) for found in page}

    def get(self, name: str, most: int) -> bytes | None:
        from mission9.s3.objects import get_if_there

        return get_if_there(self.root / name, most)

    def read(self, name: str, at: int, length: int) -> bytes:
        from mission9.s3.range_reader import get_range

        return get_range(self.root / name, at, length)

    def open(self, name: str) -> IO[bytes]:
        from mission9.s3.range_reader import RangeReader

        reader: Any = RangeReader(self.root / name)
        return reader  # type: ignore[no-any-return]

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        from mission9.s3.objects import put

        with scratch_folder() as scratch:
            file = scratch / "file"
            yield file
            put(self.root / name, file)

    def put(self, name: str, content: bytes) -> None:
        from mission9.s3.objects import put

        put(self.root / name, content)

    def remove(self, names: Collection[str]) -> None:
        from mission9.s3.objects import delete

        delete([self.root / name for name in names])

    def sync(self) -> None:
        """Do nothing: what a bucket has answered for is kept."""


def _names_in(folder: Path) -> list[str]:
    """What lies in a folder, if there is one; not what is hidden."""
    return [file.name for file in files_in(folder) if not file.name.startswith(".")] if folder.is_dir() else []


def _names_at(address: Address) -> set[str]:
    """What lies directly below a prefix."""
    from mission9.s3.listings import list_level

    objects, prefixes = list_level(address, OutputError)
    return {name for name in (*(address.relative(found.key) for found in objects), *(p.name for p in prefixes)) if name}


def _check_is_pack(names: set[str], place: str) -> None:
    """Refuse a place that holds files of others, or the result of a run.

    Raises:
        OutputError: saying which.
    """
    if names & _OF_RESULTS:
        raise OutputError(f"the output {place} holds the results of a run, and no pack: give another --output")
    if names - {STATE} and not names & _OF_PACKS:
        raise OutputError(f"the output {place} holds {min(names - {STATE})}, which is no pack: give another --output")
