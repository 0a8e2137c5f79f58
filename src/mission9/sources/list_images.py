"""List a source -> one row a file, sorted by path, without reading any file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from mission9.errors import InputError
from mission9.sources import open_source
from mission9.sources.base import Root
from mission9.sources.layout import split_named
from mission9.sources.listing import _LINK, USUAL, Listing, ListingCounts, skipped_as


def list_images(root: Root, found: ListingCounts, listing: Listing = USUAL) -> Iterator[pa.RecordBatch]:
    """Batches of `schema.LISTING`, sorted by path as bytes; `found` is filled during iteration.

    The split is that of a folder found by `layout_of`, else "all". The label is the name of the file's folder, or of
    the folder at `listing.label_level`. Files named as images, or without an extension, are listed; the others are
    counted in `found.skipped`, together with files in folders of tools, and links that lead out of `root` or in
    circles. The folder `listing.exclude`, of the results, is skipped. A pack returns the rows from which it was made.

    Raises:
        InputError: a folder cannot be read, or the splits are ambiguous.
    """
    for rows in open_source(root).rows(found, listing):
        if listing.splits_from == "auto":
            found.strays.check(root)
        yield rows


def has_more_images(root: Root, count: int) -> bool:
    """Return True if a folder contains more than `count` images, without listing more than needed."""
    names = open_source(root).names()
    images = (name for name in names if skipped_as(name, next_to_splits=False) is None)
    return next(islice(images, count, None), None) is not None


def check_links(place: str, found: ListingCounts) -> None:
    """Refuse a listing in which everything, or a whole split, is links that were not followed.

    Raises:
        InputError: the links, by name.
    """
    if not found.links:
        return
    depth = len(found.layout.above) if found.layout else 0
    ways = [path.split("/") for path in found.links]
    # Without folders of splits, a folder above a link may have been one.
    splits = [way[-1] for way in ways if len(way) <= depth + 1 and split_named(way[-1])]
    if splits or not found.listed:
        names = ", ".join(splits or found.links) + (", ..." if found.skipped[_LINK] > len(found.links) else "")
        raise InputError(
            f"{names} in {place} are links that lead out of it, or in circles, and are not followed: pass "
            "--follow-links, or replace them by their targets"
        )
