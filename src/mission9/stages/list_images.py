"""A folder -> one row a file, in order of path; nothing is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from mission9.errors import InputError
from mission9.names import IMAGE_EXTENSIONS, to_text
from mission9.schema import LISTING, NO_SPLIT, TEST, TRAINING, VALIDATION

_SPLIT_FOLDERS = {"training": TRAINING, "train": TRAINING, "validation": VALIDATION, "val": VALIDATION, "test": TEST}

_LINK = "(link)"  # counted in the place of an extension: a link that is not followed

_BATCH_ROWS = 10_000


@dataclass
class Found:
    """What a listing came upon: images by split, and other files by extension."""

    listed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.listed.total() + self.skipped.total()


def list_images(root: str, found: Found, *, all_files: bool = False, leave_out: str = "") -> Iterator[pa.RecordBatch]:
    """Batches of `schema.LISTING`, sorted by path as bytes; `found` is filled while they are taken.

    The split is Training, Validation or Test where the first folder says so (train, val, test in any case
    too), else "all". The label is the name of the folder that holds the file. Listed are files named as images, or
    without an extension; the rest is counted in `found.skipped`, with the links that lead out of `root` or in circles.
    The folder `leave_out`, where results go, is passed over.

    Raises:
        InputError: `root` is no folder, or a folder in it cannot be read.
    """
    check_folder(root)
    rows: list[tuple[str, str, str, int, int]] = []
    top = os.fsencode(os.path.realpath(root))
    has_splits = any(to_text(entry.name).lower() in _SPLIT_FOLDERS for entry in _scan(top) if _is_folder(entry))
    for name, entry, is_followed in _walk(top, os.fsencode(os.path.realpath(leave_out)) if leave_out else b""):
        path = to_text(name)
        beside_splits = has_splits and "/" not in path
        skipped = _LINK if not is_followed else None if all_files else _skip(path, beside_splits=beside_splits)
        if skipped is not None:
            found.skipped[skipped] += 1
            continue
        first, _, rest = path.partition("/")
        split = _SPLIT_FOLDERS.get(first.lower(), NO_SPLIT) if rest else NO_SPLIT
        label = to_text(os.path.basename(os.path.dirname(os.path.join(top, name))))
        rows.append((path, split, label, *_facts(entry)))
        found.listed[split] += 1
        if len(rows) == _BATCH_ROWS:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def split_and_label(path: str) -> tuple[str, str]:
    """The split and the label of a file by its path alone: the innermost folder that names a split, and its own."""
    folders = path.split("/")[:-1]
    splits = [_SPLIT_FOLDERS[name.lower()] for name in folders if name.lower() in _SPLIT_FOLDERS]
    return (splits or [NO_SPLIT])[-1], (folders or [""])[-1]


def fitting_split(images: Mapping[str, int]) -> str:
    """The split to fit a PCA on, of the numbers of images by split: Training, else those without a split.

    Raises:
        InputError: there is neither.
    """
    for split in (TRAINING, NO_SPLIT):
        if images.get(split):
            return split
    raise InputError(f"there are images of {', '.join(images) or 'no split'}, and none of Training to fit the PCA on")


def check_folder(root: str) -> None:
    """Refuse what is not a folder.

    Raises:
        InputError: saying which it is.
    """
    if not os.path.exists(root):
        raise InputError(f"there is no folder {root}; give the folder of your images with --input")
    if not os.path.isdir(root):
        raise InputError(f"{root} is a file; give the folder that holds Training/ and Test/, or the label folders")


def _walk(top: bytes, leave_out: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes], bool]]:
    """Every file below `top` with its relative path, in the order of the paths' bytes, and whether it is to be taken.

    A link is, if it leads to somewhere below `top` and not to a folder that holds the link.
    """
    levels = [(b"", top, iter(_scan(top)))]
    while levels:
        prefix, folder, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        place = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder, entry.name)
        is_inside = place == top or place.startswith(top.rstrip(b"/") + b"/")
        if not _is_folder(entry):
            yield prefix + entry.name, entry, is_inside
        elif not is_inside or any(place == holder for _, holder, _ in levels):
            yield prefix + entry.name, entry, False
        elif place != leave_out:
            levels.append((prefix + entry.name + b"/", place, iter(_scan(entry.path))))


def _scan(folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            # A folder sorts as its paths do, with the slash: "a.b" comes before "a/b".
            return sorted(entries, key=lambda entry: entry.name + b"/" if _is_folder(entry) else entry.name)
    except OSError as error:
        raise InputError(f"the folder {to_text(folder)} cannot be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _skip(path: str, *, beside_splits: bool) -> str | None:
    """The extension under which a file is counted as skipped; None if it is to be listed."""
    name = path.rpartition("/")[2].lower()
    # A name like .DS_Store is all extension.
    extension = os.path.splitext(name)[1] or (name if name.startswith(".") else "")
    # Beside Training/ and Test/ lie files like LICENSE; elsewhere a name without extension may be an image's.
    if extension in IMAGE_EXTENSIONS or (not extension and not beside_splits):
        return None
    return extension or "(none)"


def _facts(entry: os.DirEntry[bytes]) -> tuple[int, int]:
    try:
        facts = entry.stat()
    except OSError:  # gone, or a link to nothing: reading it will say so
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _batch(rows: list[tuple[str, str, str, int, int]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, LISTING, strict=True)], schema=LISTING
    )
