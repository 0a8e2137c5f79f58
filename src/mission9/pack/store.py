"""What holds the files of a pack: a folder, or a prefix in a bucket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from mission9.errors import OutputError
from mission9.files import (
    appearing,
    files_in,
    make_folder,
    open_to_read,
    patiently,
    remove_file,
    remove_folder,
    write_whole,
)
from mission9.folder_lock import sign, take_lock
from mission9.pack.layout import LOCK, MANIFEST, STATE
from mission9.s3.address import Address, is_s3
from mission9.untrusted import read_file

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


def store_of(place: str) -> Store:
    """What holds the files of a pack, by where it is."""
    return BucketStore(Address.of(place)) if is_s3(place) else FolderStore(Path(place).absolute())


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
            names = [name for name in os.listdir(self.root) if not name.startswith(".")] if self.root.exists() else []
            _check_is_pack(names, str(self.root))
            is_new = not self.root.exists()
            lock = take_lock(self.root / LOCK, f"another is packing into {self.root}")
        except OSError as error:
            raise OutputError(f"the folder {self.root} cannot be written: {error.strerror}; give another") from error
        with lock:
            sign(lock)
            try:
                yield lambda: None  # the system lets nobody take it
            finally:
                if not names and os.listdir(self.root / STATE) == [Path(LOCK).name]:
                    remove_folder(self.root if is_new else self.root / STATE)

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


@dataclass(frozen=True)
class BucketStore:
    """A prefix in a bucket."""

    root: Address

    def __str__(self) -> str:
        return str(self.root)

    @contextmanager
    def lock(self) -> Iterator[CheckLock]:
        from mission9.s3.lease import leased
        from mission9.s3.listings import list_level

        if not self.root.key:
            raise OutputError(f"the pack would lie at the top of {self.root}: give {self.root}/PREFIX")
        objects, prefixes = list_level(self.root, OutputError)
        names = [*(self.root.relative(found.key) for found in objects), *(prefix.name for prefix in prefixes)]
        _check_is_pack([name for name in names if name], str(self.root))
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

        with tempfile.TemporaryDirectory(prefix="mission9-") as scratch:
            file = Path(scratch, "file")
            yield file
            put(self.root / name, file)

    def put(self, name: str, content: bytes) -> None:
        from mission9.s3.objects import put

        put(self.root / name, content)

    def remove(self, names: Collection[str]) -> None:
        from mission9.s3.objects import delete

        delete([self.root / name for name in names])


def _check_is_pack(names: list[str], place: str) -> None:
    """Refuse a place that holds files of others."""
    if names and MANIFEST not in names and STATE not in names:
        raise OutputError(f"the output {place} holds {sorted(names)[0]}, which is no pack: give another --output")
