"""Where images lie, and how their bytes are had: in a folder, in a bucket, in a pack, or in a store of fsspec.

A source is named by a text, its root, which is what travels to workers; `settled` makes it of what users write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from mission9.concurrency.ahead import HERE, REMOTE, Ahead
from mission9.disk.names import from_text
from mission9.pack.layout import find_index, is_index
from mission9.places import real_root
from mission9.s3.address import Address, is_s3
from mission9.urls import is_url, without_file

if TYPE_CHECKING:
    import pyarrow as pa

    from mission9.stages.list_images import Found, Listing


class Source(Protocol):
    """Images that lie together; `ahead` says how many of them should be under way at a time."""

    ahead: Ahead

    def check(self) -> None:
        """Refuse what is not there.

        Raises:
            InputError: saying what it is.
        """

    def rows(self, found: Found, listing: Listing) -> Iterator[pa.RecordBatch]:
        """As `list_images` gives them.

        Raises:
            InputError: they cannot be listed.
        """

    def names(self) -> Iterator[bytes]:
        """The names of all files, without their folders."""

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The whole content of what `rows` calls `path`.

        Raises:
            ImageError: with the reason.
        """


def settled(place: str) -> str:
    """The root of what a user names, the same from every folder and process; of a pack, what it holds at this moment.

    Raises:
        InputError: it is a pack that is damaged, or a bucket does not say.
    """
    root = real_root(place)
    return root if is_index(root) or is_url(root) else find_index(root) or root


@lru_cache(maxsize=8)
def source_of(root: str) -> Source:
    """The source that a root names; it stays, with what it knows, for the next who asks."""
    if is_index(root):
        from mission9.pack.read_pack import PackSource  # loads what other runs do not need

        return PackSource(root)
    if is_url(root):
        from mission9.sources.fsspec_source import FsspecSource

        return FsspecSource(root)
    return _Bucket(root) if is_s3(root) else _Folder(without_file(root))


class _Folder:
    ahead = HERE

    def __init__(self, root: str) -> None:
        self._root = root

    def check(self) -> None:
        from mission9.stages.list_images import check_is_folder

        check_is_folder(self._root)

    def rows(self, found: Found, listing: Listing) -> Iterator[pa.RecordBatch]:
        from mission9.stages.list_images import folder_rows

        return folder_rows(self._root, found, listing)

    def names(self) -> Iterator[bytes]:
        from mission9.stages.list_images import names_in

        return names_in(self._root)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        from mission9.stages.read_bytes import read_bytes

        return read_bytes(os.path.join(os.fsencode(self._root), from_text(path)), max_bytes=max_bytes)


class _Bucket:
    """Nothing tells of a prefix but what is below it."""

    ahead = REMOTE

    def __init__(self, root: str) -> None:
        self._root = root

    def check(self) -> None:
        pass

    def rows(self, found: Found, listing: Listing) -> Iterator[pa.RecordBatch]:
        from mission9.s3.image_rows import image_rows

        return image_rows(self._root, found, listing)

    def names(self) -> Iterator[bytes]:
        from mission9.s3.image_rows import names_below

        return names_below(self._root)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        from mission9.s3.read_object import read_object

        return read_object(Address.of(self._root) / from_text(path).decode(), max_bytes=max_bytes)
