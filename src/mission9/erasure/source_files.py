"""Paths of images -> their files, or all versions of their objects, deleted."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mission9.erasure.ids import Image
from mission9.errors import ConfigError, StorageError
from mission9.sources.list_images import list_images
from mission9.sources.listing import Listing, ListingCounts
from mission9.sources.pack.layout import find_index
from mission9.storage.local.files import retry_io
from mission9.storage.local.names import from_text, to_path, to_text
from mission9.storage.location import is_url, real_root
from mission9.storage.s3.address import Address, is_s3

_SECOND = 1_000_000_000  # nanoseconds


@dataclass
class Deleted:
    """Files, or versions of objects and delete markers; of the files, how many are elsewhere too.

    These have other names (hard links), or were links: what a link leads to is not deleted, since others may use it.
    """

    files: int = 0
    versions: int = 0
    linked: int = 0


def source_root(given: str | None, of_run: str) -> str:
    """Return where the images are: what is given, else the folder that the run was given, if its path is absolute.

    Somebody else may have made the result: nothing is deleted in a bucket that it alone names.

    Raises:
        ConfigError: it is none, or they are in a pack or a store that single images are not deleted from.
    """
    place = given or of_run
    if not place:
        raise ConfigError("there is no result that says where its images are: give --input")
    if not given and is_s3(place):
        raise ConfigError(f"the result names {place}, where nothing is deleted unless you do: give --input {place}")
    if not given and ("***" in place or not os.path.isabs(place)):
        raise ConfigError(f"the run was given --input {place}, which may be another folder from here: give --input")
    root = real_root(place)
    if is_url(root):
        raise ConfigError(
            f"images at {place} are not deleted by mission9: delete them there, and erase without --source"
        )
    if find_index(root):
        raise ConfigError(
            f"{place} is a pack: delete the images from where it was made, pack it again, and erase without --source"
        )
    return root


def is_there(root: str, path: str) -> bool:
    """Tell whether an image's file or object, or an old version of it, is there; nothing outside of the root is."""
    if is_s3(root):
        from mission9.storage.s3.versions import versions_of

        return bool(versions_of(_address(root, path)))
    if any(part in ("", ".", "..") for part in path.split("/")):
        return False
    file = to_path(root, path)
    top, folder = os.path.realpath(os.fsencode(root)), os.path.realpath(os.path.dirname(file))
    is_below = folder == top or folder.startswith(top.rstrip(b"/") + b"/")  # images-private is beside images
    return is_below and (os.path.isfile(file) or os.path.islink(file))


def images_in(root: str, results: str) -> Iterator[Image]:
    """Every file below the root of the input, but for `results`; of objects also those that only versions are left of.

    Raises:
        InputError: it cannot be listed.
    """
    if is_s3(root):
        from mission9.storage.s3.versions import last_changes_below

        top = Address.of(root)
        for key, changed in last_changes_below(top):
            yield Image(to_text(top.relative(key).encode()), int(changed.timestamp()) * _SECOND)
        return
    for batch in list_images(root, ListingCounts(), Listing(all_files=True, exclude=results, splits_from="folders")):
        yield from map(Image, batch["path"].to_pylist(), batch["modified"].to_pylist())


def delete_sources(root: str, paths: Collection[str]) -> Deleted:
    """Delete images; those that are gone already do not matter.

    Raises:
        StorageError: one cannot be deleted.
    """
    deleted = Deleted()
    for path in paths:
        if is_s3(root):
            from mission9.storage.s3.versions import delete_versions, versions_of

            found = versions_of(_address(root, path))
            delete_versions(Address.of(root).bucket, found)
            deleted.versions += len(found)
        else:
            _delete_file(to_path(root, path), deleted)
    return deleted


def _address(root: str, path: str) -> Address:
    return Address.of(root) / from_text(path).decode()


def _delete_file(file: bytes, deleted: Deleted) -> None:
    try:
        facts = os.lstat(file)
        retry_io(lambda: os.unlink(file))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(
            f"an image cannot be deleted: {error.strerror}; mend the permissions of its folder, then give the same "
            "command again"
        ) from error
    deleted.files += 1
    deleted.linked += facts.st_nlink > 1 or stat.S_ISLNK(facts.st_mode)
