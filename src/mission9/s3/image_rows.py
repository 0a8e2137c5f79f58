"""Objects below a prefix -> the rows that `list_images` gives of a folder with the same files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from mission9.disk.names import to_text
from mission9.errors import InputError
from mission9.s3.address import Address, is_s3
from mission9.s3.list_objects import Entry, Top, list_objects
from mission9.s3.objects import head
from mission9.stages.layout import RESULTS, STATE, Layout, tools_folder
from mission9.stages.list_images import BATCH_ROWS, Found, Listing, batch_of, has_image_name, skipped_as

_FOLDER = "(folder)"  # counted in the place of an extension: an empty object that stands for a folder


def image_rows(root: str, found: Found, listing: Listing) -> Iterator[pa.RecordBatch]:
    """Batches of `schema.LISTING`, sorted by path as bytes; `found` is filled while they are taken.

    Raises:
        InputError: nothing is there, it cannot be listed, or it is not clear what is a split.
    """
    address = Address.of(root)
    top = Top.of(address)
    layout = found.layout = listing.layout(root, lambda above: _look(top, above))
    leave_out = Address.of(listing.leave_out) if is_s3(listing.leave_out) else None
    results: str | None = None
    rows: list[tuple[str, str, str, int, int]] = []
    is_empty = True
    for entry in list_objects(top, leave_out=leave_out):
        is_empty = False
        folders = _folders(entry)
        if STATE in folders:  # it sorts before all else of a result
            names = entry.path.split("/")
            results = "".join(f"{name}/" for name in names[: names.index(STATE)])
        is_of_results = results is not None and entry.path.startswith(results)
        skipped = RESULTS if is_of_results else _skipped(entry, folders, layout, all_files=listing.all_files)
        if skipped is not None:
            found.skipped[skipped] += 1
            continue
        if not rows and not found.listed:
            head(address / entry.path, InputError)  # what may be listed but not read is told once, not for each
        row = _row(entry, folders, layout, address)
        found.add_image(row[1], "/".join(folders))
        rows.append(row)
        if len(rows) == BATCH_ROWS:
            yield batch_of(rows)
            rows = []
    if is_empty:
        raise InputError(f"there is nothing below {address}; give the prefix of your images with --input")
    if rows:
        yield batch_of(rows)


def names_below(root: str) -> Iterator[bytes]:
    """The names of the objects below a prefix, without what is before their last slash."""
    return (entry.path.rpartition("/")[2].encode() for entry in list_objects(Top.of(Address.of(root))))


def _look(top: Top, above: Sequence[str]) -> tuple[list[str], bool]:
    """The folders below some, as `Look` has it."""
    for name in above:
        top = Top.of(top.root / name)
    names = (found.key.rpartition("/")[2].encode() for found in top.objects_there)
    return [name for name in top.folders if name], any(has_image_name(name) for name in names)


def _folders(entry: Entry) -> list[str]:
    return [name for name in entry.path.split("/")[:-1] if name]  # of a//b.jpg, which nobody meant, it is a


def _skipped(entry: Entry, folders: Sequence[str], layout: Layout, *, all_files: bool) -> str | None:
    """What an object is counted as that is not listed."""
    name = entry.path.rpartition("/")[2]
    # Programs that show buckets as folders make such an object for each.
    if not entry.size and "." not in name:
        return _FOLDER
    if all_files:
        return None
    return tools_folder(folders) or skipped_as(name.encode(), beside_splits=layout.is_beside_splits(folders))


def _row(entry: Entry, folders: Sequence[str], layout: Layout, root: Address) -> tuple[str, str, str, int, int]:
    label = layout.label_of(folders, root.name or root.bucket)
    path = to_text(entry.path.encode())
    return path, layout.split_of(folders), to_text(label.encode()), entry.size, entry.modified
