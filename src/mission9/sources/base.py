"""The port of a source: what lists images and reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from mission9.concurrency.prefetch import PrefetchLimits

if TYPE_CHECKING:
    import pyarrow as pa

    from mission9.sources.deletion import DeletableImages
    from mission9.sources.listing import Listing, ListingCounts


class Source(Protocol):
    """Images that lie together; `ahead` says how many of them should be under way at a time."""

    ahead: PrefetchLimits

    def check(self) -> None:
        """Refuse what is not there.

        Raises:
            InputError: saying what it is.
        """

    def rows(self, found: ListingCounts, listing: Listing) -> Iterator[pa.RecordBatch]:
        """As `list_images` gives them.

        Raises:
            InputError: they cannot be listed.
        """

    def names(self) -> Iterator[bytes]:
        """The names of all files, without their folders."""

    def deletable(self) -> DeletableImages:
        """The same images, to be deleted.

        Raises:
            ConfigError: single images are not deleted there.
        """

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The whole content of what `rows` calls `path`.

        Raises:
            ImageError: with the reason.
        """
