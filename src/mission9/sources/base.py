"""The port of a source, which lists and reads images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NewType, Protocol

from mission9.concurrency.prefetch import PrefetchLimits

if TYPE_CHECKING:
    import pyarrow as pa

    from mission9.sources.deletion import DeletableImages
    from mission9.sources.listing import Listing, ListingCounts

# The place of a source as one text for all folders and processes, which tasks take to workers (`find_root`).
Root = NewType("Root", str)


class Source(Protocol):
    """The images below a root; `ahead` is the number of reads to keep in flight."""

    ahead: PrefetchLimits

    def check(self) -> None:
        """Refuse a place that is not a source.

        Raises:
            InputError: it does not exist, or is something else.
        """

    def rows(self, found: ListingCounts, listing: Listing) -> Iterator[pa.RecordBatch]:
        """Batches of `schema.LISTING`, as from `list_images`.

        Raises:
            InputError: they cannot be listed.
        """

    def names(self) -> Iterator[bytes]:
        """The names of all files, without their folders."""

    def deletable(self) -> DeletableImages:
        """The same images, for deletion.

        Raises:
            ConfigError: the store does not support deletion of single images.
        """

    def file(self, path: str) -> bytes | None:
        """The local file with a `path` from `rows`; None if only `read` reaches it."""

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Read the whole file with a `path` from `rows`.

        Raises:
            ImageError: it cannot be read.
        """
