"""The port of a place of results, and a folder as one."""

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
    """Counts of what no listing of an output shows: old versions with delete markers, and unfinished uploads."""

    versions: int = 0
    uploads: int = 0


class OutputPlace(Protocol):
    """A place of results, as a user names it; `name` is that of the folder `result` in messages."""

    @property
    def name(self) -> str: ...

    @property
    def copies(self) -> tuple[str, ...]:
        """Copies that no erasure here reaches, in words."""

    def open(self, *, overwrite: bool) -> AbstractContextManager[Output]:
        """Lock the output for one writer, and make it if need be.

        Raises:
            OutputError: it is a file, cannot be written, holds files of others, or another run is writing it.
        """

    def exists(self) -> bool:
        """Tell whether a run has written here.

        Raises:
            StorageError: the bucket does not tell.
        """

    def result(self, *, to_verify: bool = False) -> Path:
        """The folder of the result; of one in a bucket a copy, `to_verify` a fresh one with all that vouches for it.

        Raises:
            OutputError: the bucket holds no result here.
            StorageError: it cannot be read.
        """

    def model(self) -> Path:
        """The folder of the PCA model that lies here; of one in a bucket a copy.

        Raises:
            ModelError: the bucket holds none here.
            StorageError: it cannot be read.
        """

    def last_report(self) -> dict[str, Any]:
        """The report of the result that stands; empty if none does."""

    def state_files(self) -> FileStore:
        """Small files of the state."""

    def encryption_key(self) -> str | None:
        """The file of the key of encrypted tables; None where they are not encrypted."""

    def put_page(self, folder: Path) -> str:
        """Put the page that was made in the folder `result` where the result is; return where that is."""

    def page(self, run_id: str) -> str | None:
        """The page of a run that has just ended; None where it has none."""

    def forget_copies(self) -> None:
        """Delete the copies of results and models that this user has."""

    def delete_hidden(self) -> HiddenData:
        """Delete the data that no listing shows; return how much there was."""

    def has_hidden(self) -> bool:
        """Tell whether any of that is left, but for versions of what names no image."""

    def objects(self) -> Iterator[tuple[str, Path]]:
        """Each object by its address, as a file that lasts for its turn; none of a folder."""


@dataclass(frozen=True)
class FolderPlace:
    """A folder."""

    root: Path
    copies: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.root.absolute())

    def open(self, *, overwrite: bool) -> AbstractContextManager[Output]:
        return open_local_output(self.root, overwrite=overwrite)

    def exists(self) -> bool:
        return (self.root / STATE).is_dir()

    def result(self, *, to_verify: bool = False) -> Path:  # noqa: ARG002 - it is verified where it is
        return self.root.absolute()

    def model(self) -> Path:
        return self.root

    def last_report(self) -> dict[str, Any]:
        return Output(self.root.absolute()).last_report()

    def state_files(self) -> FileStore:
        return Output(self.root.absolute()).state_files

    def encryption_key(self) -> str | None:
        return key_of(self.root) if is_encrypted(self.root / STATE) else None

    def put_page(self, folder: Path) -> str:  # noqa: ARG002 - it is there
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
