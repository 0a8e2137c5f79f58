"""The port for a place of results, and its implementation for folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mission9.crypto.parquet import is_encrypted, key_of
from mission9.output.layout import PAGE, STATE
from mission9.output.local import Output
from mission9.output.open_local import open_local_output
from mission9.storage.file_store import FileStore


class HiddenData(NamedTuple):
    """Counts of hidden data: old versions with delete markers, and unfinished uploads."""

    versions: int = 0
    uploads: int = 0


class OutputPlace(Protocol):
    """A user-supplied place of results; `name` is that of the folder `result` in messages."""

    @property
    def name(self) -> str: ...

    @property
    def copies(self) -> tuple[str, ...]:
        """Descriptions of the copies that no erasure here reaches."""

    def open(self, *, overwrite: bool) -> AbstractContextManager[Output]:
        """Lock the output for one writer, and create it if absent.

        Raises:
            OutputError: it is a file, is not writable, holds foreign files, or another run is writing to it.
        """

    def exists(self) -> bool:
        """Return True if a run has written here.

        Raises:
            StorageError: the bucket does not answer.
        """

    def result(self, *, to_verify: bool = False) -> Path:
        """The folder of the result; for a bucket a copy, or with `to_verify` a fresh one that includes its shards.

        Raises:
            OutputError: the bucket holds no result here.
            StorageError: it cannot be read.
        """

    def model(self) -> Path:
        """The folder of the PCA model stored here; for a bucket, a copy.

        Raises:
            ModelError: the bucket holds no model here.
            StorageError: it cannot be read.
        """

    def last_report(self) -> dict[str, Any]:
        """The report of the current result; empty if there is none."""

    def state_files(self) -> FileStore:
        """The small files of the state."""

    def encryption_key(self) -> str | None:
        """The key file of encrypted tables; None if they are not encrypted."""

    def put_page(self, folder: Path) -> str:
        """Store the page made in the folder `result` with the result; return its place."""

    def page(self, run_id: str) -> str | None:
        """The page of a run that has just ended; None if there is none."""

    def forget_copies(self) -> None:
        """Delete this user's copies of results and models."""

    def delete_hidden(self) -> HiddenData:
        """Delete hidden data; return its counts."""

    def has_hidden(self) -> bool:
        """Return True if hidden data is left, except versions of objects that name no image."""

    def objects(self) -> Iterator[tuple[str, Path]]:
        """Each object by its address, as a file that exists for one iteration; none for a folder."""


@dataclass(frozen=True)
class FolderPlace:
    """A folder that holds results."""

    root: Path
    copies: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.root.absolute())

    def open(self, *, overwrite: bool) -> AbstractContextManager[Output]:
        return open_local_output(self.root, overwrite=overwrite)

    def exists(self) -> bool:
        return (self.root / STATE).is_dir()

    def result(self, *, to_verify: bool = False) -> Path:  # noqa: ARG002 - a folder is verified in place
        return self.root.absolute()

    def model(self) -> Path:
        return self.root

    def last_report(self) -> dict[str, Any]:
        return Output(self.root.absolute()).last_report()

    def state_files(self) -> FileStore:
        return Output(self.root.absolute()).state_files

    def encryption_key(self) -> str | None:
        return key_of(self.root) if is_encrypted(self.root / STATE) else None

    def put_page(self, folder: Path) -> str:  # noqa: ARG002 - the page is in the folder already
        return str(self.root / PAGE)

    def page(self, run_id: str) -> str | None:  # noqa: ARG002 - a page of another run was deleted
        page = self.root / PAGE
        return str(page) if page.exists() else None

    def forget_copies(self) -> None:
        pass

    def delete_hidden(self) -> HiddenData:
        return HiddenData()

    def has_hidden(self) -> bool:
        return False

    def objects(self) -> Iterator[tuple[str, Path]]:
        return iter(())
