"""Deletion of single images from a folder or a bucket."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mission9.errors import StorageError
from mission9.sources.listing import Listing, ListingCounts
from mission9.storage.local.files import retry_io, sync_file_system
from mission9.storage.local.names import from_text, to_path, to_text
from mission9.storage.s3.address import Address

_SECOND = 1_000_000_000  # nanoseconds


@dataclass
class Deleted:
    """Counts of deleted files, or of versions and delete markers; and of the files that remain under another name.

    Those have other names (hard links), or were links: a link's target stays, since others may use it.
    """

    files: int = 0
    versions: int = 0
    linked: int = 0


class DeletableImages(Protocol):
    """Images at a root that supports deletion."""

    @property
    def root(self) -> str: ...

    def has(self, path: str) -> bool:
        """Return True if an image's file or object, or an old version of it, exists; False outside the root."""

    def files(self, results: str) -> Iterator[tuple[str, int]]:
        """The path of every file except those in `results`, with its modification time in nanoseconds since 1970.

        Includes objects of which only old versions are left.

        Raises:
            InputError: they cannot be listed.
        """

    def delete(self, paths: Collection[str]) -> Deleted:
        """Delete images permanently; absent ones are ignored.

        Raises:
            StorageError: one cannot be deleted.
        """


@dataclass(frozen=True)
class FilesToDelete:
    """Images in a folder, for deletion."""

    root: str

    def has(self, path: str) -> bool:
        if any(part in ("", ".", "..") for part in path.split("/")):
            return False
        file = to_path(self.root, path)
        top, folder = os.path.realpath(os.fsencode(self.root)), os.path.realpath(os.path.dirname(file))
        is_below = folder == top or folder.startswith(top.rstrip(b"/") + b"/")  # images-private is not in images
        return is_below and (os.path.isfile(file) or os.path.islink(file))

    def files(self, results: str) -> Iterator[tuple[str, int]]:
        from mission9.sources.walk import check_is_folder, folder_rows

        check_is_folder(self.root)
        listing = Listing(all_files=True, exclude=results, splits_from="folders")
        for batch in folder_rows(self.root, ListingCounts(), listing):
            yield from zip(batch["path"].to_pylist(), batch["modified"].to_pylist(), strict=True)

    def delete(self, paths: Collection[str]) -> Deleted:
        deleted = Deleted()
        for path in paths:
            _delete_file(to_path(self.root, path), deleted)
        sync_file_system(Path(self.root))  # so that a power cut cannot restore them
        return deleted


@dataclass(frozen=True)
class ObjectsToDelete:
    """Images below a prefix, for deletion with all their versions."""

    root: str

    def has(self, path: str) -> bool:
        from mission9.storage.s3.versions import versions_of

        return bool(versions_of(self._address(path)))

    def files(self, results: str) -> Iterator[tuple[str, int]]:  # noqa: ARG002 - names of results are no images'
        from mission9.storage.s3.versions import last_changes_below

        top = Address.of(self.root)
        for key, changed in last_changes_below(top):
            yield to_text(top.relative(key).encode()), int(changed.timestamp()) * _SECOND

    def delete(self, paths: Collection[str]) -> Deleted:
        from mission9.storage.s3.versions import delete_versions, versions_of

        deleted = Deleted()
        for path in paths:
            address = self._address(path)
            found = versions_of(address)
            delete_versions(address.bucket, found)
            deleted.versions += len(found)
        return deleted

    def _address(self, path: str) -> Address:
        return Address.of(self.root) / from_text(path).decode()


def _delete_file(file: bytes, deleted: Deleted) -> None:
    try:
        facts = os.lstat(file)
        retry_io(lambda: os.unlink(file))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(
            f"an image cannot be deleted: {error.strerror}; fix the permissions of its folder, then rerun the same "
            "command"
        ) from error
    deleted.files += 1
    deleted.linked += facts.st_nlink > 1 or stat.S_ISLNK(facts.st_mode)
