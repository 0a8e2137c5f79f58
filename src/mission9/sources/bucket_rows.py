"""Objects below a prefix -> the rows that `list_images` returns for a folder with the same files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mission9.errors import InputError
from mission9.sources.bucket_listing import Entry, Top, list_objects
from mission9.sources.layout import RESULTS, STATE, Layout, tools_folder
from mission9.sources.listing import Listing, ListingCounts, Row, has_image_name, in_batches, skipped_as
from mission9.storage.local.names import to_text
from mission9.storage.s3.address import Address, address_of
from mission9.storage.s3.objects import head

_FOLDER = "(folder)"  # counted in place of an extension: an empty placeholder object of a folder


@in_batches
def image_rows(root: str, found: ListingCounts, listing: Listing) -> Iterator[Row]:
    """Rows of `schema.LISTING`, sorted by path as bytes; `found` is filled during iteration.

    Raises:
        InputError: the prefix is empty, cannot be listed, or its splits are ambiguous.
    """
    address = Address.of(root)
    top = Top.of(address)
    layout = found.layout = listing.layout(root, lambda above: _look(top, above))
    exclude = address_of(listing.exclude)
    results: str | None = None
    is_empty = True
    for entry in list_objects(top, exclude=exclude):
        is_empty = False
        folders = _folders(entry)
        if STATE in folders:  # it sorts before the rest of a result
            names = entry.path.split("/")
            results = "".join(f"{name}/" for name in names[: names.index(STATE)])
        is_of_results = results is not None and entry.path.startswith(results)
        skipped = RESULTS if is_of_results else _skipped(entry, folders, layout, all_files=listing.all_files)
        if skipped is not None:
            found.skipped[skipped] += 1
            continue
        if not found.listed:
            head(address / entry.path, InputError)  # if objects can be listed but not read, fail once, not for each
        row = _row(entry, folders, layout, address)
        found.add_image(row[1], "/".join(folders))
        yield row
    if is_empty:
        raise InputError(f"there are no objects below {address}: pass the prefix of your images with --input")


def names_below(root: str) -> Iterator[bytes]:
    """The names of the objects below a prefix, without their folders."""
    return (entry.path.rpartition("/")[2].encode() for entry in list_objects(Top.of(Address.of(root))))


def _look(top: Top, above: Sequence[str]) -> tuple[list[str], bool]:
    """The folders below others, as a `Look` function."""
    for name in above:
        top = Top.of(top.root / name)
    names = (found.key.rpartition("/")[2].encode() for found in top.objects_there)
    return [name for name in top.folders if name], any(has_image_name(name) for name in names)


def _folders(entry: Entry) -> list[str]:
    return [name for name in entry.path.split("/")[:-1] if name]  # a//b.jpg, surely a mistake, is in a


def _skipped(entry: Entry, folders: Sequence[str], layout: Layout, *, all_files: bool) -> str | None:
    """The category under which an object is skipped; None if it is listed."""
    name = entry.path.rpartition("/")[2]
    # Programs that show buckets as folders make such a placeholder object for each.
    if not entry.size and "." not in name:
        return _FOLDER
    if all_files:
        return None
    return tools_folder(folders) or skipped_as(name.encode(), next_to_splits=layout.is_next_to_splits(folders))


def _row(entry: Entry, folders: Sequence[str], layout: Layout, root: Address) -> Row:
    label = layout.label_of(folders, root.name or root.bucket)
    path = to_text(entry.path.encode())
    return path, layout.split_of(folders), to_text(label.encode()), entry.size, entry.modified
