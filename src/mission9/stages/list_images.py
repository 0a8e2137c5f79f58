"""Where images lie -> one row a file, in order of path; nothing is read. Here, of folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

import pyarrow as pa

from mission9.disk.files import is_passing, patiently
from mission9.disk.names import IMAGE_EXTENSIONS, to_text
from mission9.errors import InputError
from mission9.places import real_root
from mission9.schema import LISTING, NO_SPLIT, TEST, TRAINING, VALIDATION, listed_time
from mission9.sources import settled, source_of
from mission9.urls import is_url

# A PCA is fitted on the first of these of which there are images.
FITTING = (TRAINING, NO_SPLIT)

SPLIT_FOLDERS = {"training": TRAINING, "train": TRAINING, "validation": VALIDATION, "val": VALIDATION, "test": TEST}

_LINK = "(link)"  # counted in the place of an extension: a link that is not followed

BATCH_ROWS = 10_000


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
    The folder `leave_out`, where results go, is passed over. A pack gives the rows of what it was made of.

    Raises:
        InputError: `root` is no folder, or a folder in it cannot be read.
    """
    check_folder(root)
    yield from source_of(settled(root)).rows(found, all_files=all_files, leave_out=leave_out)


def folder_rows(root: str, found: Found, *, all_files: bool, leave_out: str) -> Iterator[pa.RecordBatch]:
    """`list_images` of a folder."""
    rows: list[tuple[str, str, str, int, int]] = []
    for folder, name, is_followed in _walk(root, os.path.realpath(leave_out) if leave_out else ""):
        skipped = skipped_as(name, beside_splits=folder.is_beside_splits) if is_followed and not all_files else None
        if skipped is not None or not is_followed:
            found.skipped[skipped or _LINK] += 1
            continue
        rows.append((folder.path_of(name), folder.split, folder.label, *_facts(folder.place + name)))
        found.listed[folder.split] += 1
        if len(rows) == BATCH_ROWS:
            yield batch_of(rows)
            rows = []
    if rows:
        yield batch_of(rows)


def has_more_images(root: str, count: int) -> bool:
    """Whether a folder holds more than so many images; looks at no more of it than it must."""
    names = source_of(settled(root)).names()
    images = (name for name in names if skipped_as(name, beside_splits=False) is None)
    return next(islice(images, count, None), None) is not None


def names_in(root: str) -> Iterator[bytes]:
    """The names of the files below a folder."""
    return (name for _, name, is_followed in _walk(root, "") if is_followed)


def split_and_label(path: str) -> tuple[str, str]:
    """The split and the label of a file by its path alone: the innermost folder that names a split, and its own."""
    folders = path.split("/")[:-1]
    splits = [SPLIT_FOLDERS[name.lower()] for name in folders if name.lower() in SPLIT_FOLDERS]
    return (splits or [NO_SPLIT])[-1], (folders or [""])[-1]


def fitting_split(images: Mapping[str, int]) -> str:
    """The split to fit a PCA on, of the numbers of images by split: Training, else those without a split.

    Raises:
        InputError: there is neither.
    """
    for split in FITTING:
        if images.get(split):
            return split
    raise InputError(
        f"there are images of {', '.join(images) or 'no split'}, and none of Training to fit the PCA on: add a folder "
        "Training, or give --pca-model of an earlier run"
    )


def check_folder(root: str) -> None:
    """Refuse where no images can lie.

    Raises:
        InputError: saying why.
    """
    # What a URL may not hold is refused before its store is asked, and file:// means a folder.
    source_of(real_root(root) if is_url(root) else root).check()


def check_is_folder(root: str) -> None:
    """Refuse what is not a folder.

    Raises:
        InputError: saying which it is.
    """
    if not os.path.exists(root):
        raise InputError(
            f"there is no folder {root}; give the folder of your images with --input, or get Fruits-360: mission9 fetch"
        )
    if not os.path.isdir(root):
        raise InputError(f"{root} is a file; give the folder that holds Training/ and Test/, or the label folders")


class _Folder:
    """A folder on the way down: what its files have in common, and what is left of it.

    `prefix` is its path below the top, `place` where it is, both with a slash in the end. A million names are kept as
    bytes, not as what `os.scandir` gives, which takes ten times the memory.
    """

    def __init__(self, top: bytes, prefix: bytes, place: bytes) -> None:
        self.prefix, self.place = prefix, place
        self._text = to_text(prefix)
        self._is_plain = self._text == prefix.decode(errors="replace")
        names, self.links = _scan(place)
        self.names = iter(names)
        first = self._text.partition("/")[0]
        self.split = SPLIT_FOLDERS.get(first.lower(), NO_SPLIT)
        self.label = to_text(os.path.basename((prefix or top).rstrip(b"/")))
        self.is_beside_splits = not prefix and any(
            name.endswith(b"/") and to_text(name[:-1]).lower() in SPLIT_FOLDERS for name in names
        )

    def path_of(self, name: bytes) -> str:
        text = to_text(name)
        return self._text + text if self._is_plain and len(text) == len(name) else to_text(self.prefix + name)


def _walk(root: str, leave_out: str) -> Iterator[tuple[_Folder, bytes, bool]]:
    """Every file below `root` by folder and name, in the order of the paths' bytes, and whether it is to be taken.

    A link is, if it leads to somewhere below `root` and not to a folder that holds the link.
    """
    top = os.fsencode(os.path.realpath(root)).rstrip(b"/") + b"/"
    levels = [_Folder(top, b"", top)]
    while levels:
        folder = levels[-1]
        for name in folder.names:
            place = folder.place + name
            if name in folder.links:
                place = os.path.realpath(place.rstrip(b"/")) + (b"/" if name.endswith(b"/") else b"")
                if not place.startswith(top) or any(place == level.place for level in levels):
                    yield folder, name.rstrip(b"/"), False
                    continue
            if not name.endswith(b"/"):
                yield folder, name, True
            elif place.rstrip(b"/") != os.fsencode(leave_out):
                levels.append(_Folder(top, folder.prefix + name, place))
                break
        else:
            levels.pop()


def _scan(folder: bytes) -> tuple[list[bytes], set[bytes]]:
    """The names in a folder, sorted, those of folders with a slash; and which of them are links.

    With the slash a folder sorts as its paths do: "a.b" comes before "a/b".
    """
    try:
        names, links = patiently(lambda: _entries(folder))
    except OSError as error:
        where = to_text(folder.rstrip(b"/"))
        raise InputError(f"the folder {where} cannot be read: {error.strerror}; mend or move it") from error
    names.sort()
    return names, links


def _entries(folder: bytes) -> tuple[list[bytes], set[bytes]]:
    names, links = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name + b"/" if _is_folder(entry) else entry.name
            names.append(name)
            if entry.is_symlink():
                links.add(name)
    return names, links


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link that leads to itself
        if is_passing(error):
            raise
        return False


def skipped_as(name: bytes, *, beside_splits: bool) -> str | None:
    """The extension under which a file is counted as skipped; None if it is to be listed."""
    dot = name.rfind(b".")
    # A name like .DS_Store is all extension.
    extension = _extension(name[dot:]) if dot >= 0 else ""
    # Beside Training/ and Test/ lie files like LICENSE; elsewhere a name without extension may be an image's.
    if extension in IMAGE_EXTENSIONS or (not extension and not beside_splits):
        return None
    return extension or "(none)"


@lru_cache(maxsize=1000)
def _extension(name: bytes) -> str:
    return to_text(name).lower()


def _facts(path: bytes) -> tuple[int, int]:
    try:
        facts = patiently(lambda: os.stat(path))
    except OSError:  # gone, or a link to nothing: reading it will say so
        return 0, 0
    return facts.st_size, listed_time(facts.st_mtime_ns)


def batch_of(rows: list[tuple[str, str, str, int, int]]) -> pa.RecordBatch:
    """Rows of path, split, label, bytes and modified as a batch of `schema.LISTING`."""
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, LISTING, strict=True)], schema=LISTING
    )
