"""List a source -> one row a file, in order of path; nothing is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa

from mission9.errors import InputError
from mission9.sources import open_source, resolve_root
from mission9.sources.layout import split_named
from mission9.sources.listing import _LINK, USUAL, Listing, ListingCounts, skipped_as

if TYPE_CHECKING:
    pass


def list_images(root: str, found: ListingCounts, listing: Listing = USUAL) -> Iterator[pa.RecordBatch]:
    """Batches of `schema.LISTING`, sorted by path as bytes; `found` is filled while they are taken.

    The split is what a folder says, as `layout_of` finds them, else "all". The label is the name of the folder that
    holds the file, or of the one that `listing.label_level` says. Listed are files named as images, or without an
    extension; the rest is counted in `found.skipped`, with what lies in folders of tools, and links that lead out of
    `root` or in circles. The folder `listing.exclude`, where results go, is passed over. A pack gives the rows of
    what it was made of.

    Raises:
        InputError: `root` is no folder, a folder in it cannot be read, or it is not clear what is a split.
    """
    check_folder(root)
    for rows in open_source(resolve_root(root)).rows(found, listing):
        if listing.splits_from == "auto":
            found.strays.check(root)
        yield rows


def has_more_images(root: str, count: int) -> bool:
    """Tell whether a folder holds more than so many images; looks at no more of it than it must."""
    names = open_source(resolve_root(root)).names()
    images = (name for name in names if skipped_as(name, beside_splits=False) is None)
    return next(islice(images, count, None), None) is not None


def check_links(place: str, found: ListingCounts) -> None:
    """Refuse where links that were not followed are all that there is, or a whole split.

    Raises:
        InputError: with their names.
    """
    if not found.links:
        return
    depth = len(found.layout.above) if found.layout else 0
    ways = [path.split("/") for path in found.links]
    # Without folders of splits, one further up may have been all that says it.
    splits = [way[-1] for way in ways if len(way) <= depth + 1 and split_named(way[-1])]
    if splits or not found.listed:
        names = ", ".join(splits or found.links) + (", ..." if found.skipped[_LINK] > len(found.links) else "")
        raise InputError(
            f"{names} in {place} are links that lead out of it, or in circles, and are not followed: give "
            "--follow-links, or put what they lead to in their place"
        )


def check_folder(root: str) -> None:
    """Refuse where no images can lie.

    Raises:
        InputError: saying why.
    """
    open_source(root).check()
