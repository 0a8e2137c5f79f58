"""A folder as a source of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mission9.concurrency.prefetch import LOCAL
from mission9.storage.local.names import from_text

if TYPE_CHECKING:
    import pyarrow as pa

    from mission9.sources.deletion import DeletableImages
    from mission9.sources.listing import Listing, ListingCounts


class Folder:
    """Images in a folder of a disk."""

    ahead = LOCAL

    def __init__(self, root: str) -> None:
        self._root = root
        self._folder = os.fsencode(root)

    def check(self) -> None:
        from mission9.sources.walk import check_is_folder

        check_is_folder(self._root)

    def rows(self, found: ListingCounts, listing: Listing) -> Iterator[pa.RecordBatch]:
        from mission9.sources.walk import folder_rows

        return folder_rows(self._root, found, listing)

    def names(self) -> Iterator[bytes]:
        from mission9.sources.walk import names_in

        return names_in(self._root)

    def deletable(self) -> DeletableImages:
        from mission9.sources.deletion import FilesToDelete

        return FilesToDelete(self._root)

    def file(self, path: str) -> bytes:
        return os.path.join(self._folder, from_text(path))

    def read(self, path: str, *, max_bytes: int) -> bytes:
        from mission9.storage.local.read_bytes import read_bytes

        return read_bytes(self.file(path), max_bytes=max_bytes)
