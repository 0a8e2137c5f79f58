"""A prefix of a bucket as a source of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mission9.concurrency.prefetch import REMOTE
from mission9.storage.local.names import from_text
from mission9.storage.s3.address import Address

if TYPE_CHECKING:
    import pyarrow as pa

    from mission9.sources.deletion import DeletableImages
    from mission9.sources.listing import Listing, ListingCounts


class Bucket:
    """Images below a prefix, which exists only through its objects."""

    ahead = REMOTE

    def __init__(self, root: str) -> None:
        self._root = root

    def check(self) -> None:
        pass

    def rows(self, found: ListingCounts, listing: Listing) -> Iterator[pa.RecordBatch]:
        from mission9.sources.bucket_rows import image_rows

        return image_rows(self._root, found, listing)

    def names(self) -> Iterator[bytes]:
        from mission9.sources.bucket_rows import names_below

        return names_below(self._root)

    def deletable(self) -> DeletableImages:
        from mission9.sources.deletion import ObjectsToDelete

        return ObjectsToDelete(self._root)

    def file(self, path: str) -> None:  # noqa: ARG002
        return None

    def read(self, path: str, *, max_bytes: int) -> bytes:
        from mission9.sources.read_object import read_object

        return read_object(Address.of(self._root) / from_text(path).decode(), max_bytes=max_bytes)
