"""Objects below a prefix -> the rows that `list_images` gives of a folder with the same files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from mission9.disk.names import to_text
from mission9.errors import InputError
from mission9.s3.address import Address, is_s3
from mission9.s3.list_objects import Entry, Top, list_objects
from mission9.s3.objects import head
from mission9.schema import NO_SPLIT
from mission9.stages.list_images import BATCH_ROWS, SPLIT_FOLDERS, Found, batch_of, skipped_as

_FOLDER = "(folder)"  # counted in the place of an extension: an empty object that stands for a folder


def image_rows(root: str, found: Found, *, all_files: bool, leave_out: str) -> Iterator[pa.RecordBatch]:
    """Batches of `schema.LISTING`, sorted by path as bytes; `found` is filled while they are taken.

    Raises:
        InputError: nothing is there, or it cannot be listed.
    """
    address = Address.of(root)
    top = Top.of(address)
    are_splits_there = any(name.lower() in SPLIT_FOLDERS for name in top.folders)
    rows: list[tuple[str, str, str, int, int]] = []
    is_empty = True
    for entry in list_objects(top, leave_out=Address.of(leave_out) if is_s3(leave_out) else None):
        is_empty = False
        skipped = _skipped(entry, are_splits_there=are_splits_there, all_files=all_files)
        if skipped is not None:
            found.skipped[skipped] += 1
            continue
        if not rows and not found.listed:
            head(address / entry.path, InputError)  # what may be listed but not read is told once, not for each
        row = _row(entry, address)
        found.listed[row[1]] += 1
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


def _skipped(entry: Entry, *, are_splits_there: bool, all_files: bool) -> str | None:
    """What an object is counted as that is not listed."""
    above, _, name = entry.path.rpartition("/")
    # Programs that show buckets as folders make such an object for each.
    if not entry.size and "." not in name:
        return _FOLDER
    return None if all_files else skipped_as(name.encode(), beside_splits=are_splits_there and not above)


def _row(entry: Entry, root: Address) -> tuple[str, str, str, int, int]:
    folders = [name for name in entry.path.split("/")[:-1] if name]  # of a//b.jpg, which nobody meant, it is a
    split = SPLIT_FOLDERS.get(folders[0].lower(), NO_SPLIT) if folders else NO_SPLIT
    label = folders[-1] if folders else root.name or root.bucket
    path = to_text(entry.path.encode())
    return path, split, to_text(label.encode()), entry.size, entry.modified
