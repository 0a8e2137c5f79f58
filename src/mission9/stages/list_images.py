"""Where images lie -> one row a file, in order of path; nothing is read. Here, of folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from mission9.disk.files import is_passing, patiently
from mission9.disk.names import IMAGE_EXTENSIONS, to_path, to_text
from mission9.errors import InputError
from mission9.places import real_root
from mission9.schema import LISTING, NO_SPLIT, TRAINING, listed_time
from mission9.sources import settled, source_of
from mission9.stages.layout import (
    RESULTS,
    STATE,
    Layout,
    Look,
    SplitsFrom,
    Strays,
    layout_of,
    split_named,
    tools_folder,
)
from mission9.urls import is_url

if TYPE_CHECKING:
    from mission9.config import RunConfig

Got = TypeVar("Got")

# A PCA is fitted on the first of these of which there are images.
FITTING = (TRAINING, NO_SPLIT)

_LINK = "(link)"  # counted in the place of an extension: a link that is not followed

BATCH_ROWS = 10_000

_MOST_LINKS = 5  # that are told by name


@dataclass(frozen=True)
class Listing:
    """How to list: every file, or those named as images; what to leave out; what folders mean; where links lead.

    `all_files` lists the folders of tools too. With `follow_links` links out of the root are followed.
    """

    all_files: bool = False
    leave_out: str = ""
    splits_from: SplitsFrom = "auto"
    follow_links: bool = False
    label_level: int | None = None

    @staticmethod
    def of(config: RunConfig, leave_out: str = "") -> Listing:
        """The listing that a run's settings ask for."""
        return Listing(config.all_files, leave_out, config.splits, config.follow_links, config.label_level)

    def layout(self, place: str, look: Look) -> Layout:
        """The folders that mean something, as `layout_of` finds them."""
        return layout_of(place, look, self.splits_from, self.label_level)


USUAL = Listing()


@dataclass
class Found:
    """What a listing came upon: images by split, other files by extension or folder of tools, and links by path.

    A pack has no `layout`: the splits are those of what it was made of.
    """

    listed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    layout: Layout | None = None
    links: list[str] = field(default_factory=list)
    strays: Strays = field(default_factory=Strays)

    def add_image(self, split: str, folder: str) -> None:
        """Count an image that is listed, which lies in a folder."""
        self.listed[split] += 1
        if split == NO_SPLIT and self.layout and not self.layout.splits:
            self.strays.note(folder)

    @property
    def understood(self) -> str:
        """The folders that were taken for splits, in words."""
        return str(self.layout or "splits as the pack has them")

    def skip_link(self, path: str) -> None:
        """Count a link that is not followed; one that may be a split is noted however many there are."""
        self.skipped[_LINK] += 1
        if len(self.links) < _MOST_LINKS or split_named(path.rpartition("/")[2]):
            self.links.append(path)

    @property
    def total(self) -> int:
        return self.listed.total() + self.skipped.total()

    def in_brackets(self, *, folders_only: bool = False) -> str:
        """What was skipped, the most first, for a message; empty where nothing was."""
        told = [(name, count) for name, count in self.skipped.most_common() if not folders_only or name[-1] in "/)"]
        words = ", ".join(f"{count:,} {name}" for name, count in told[:5]) + (", ..." if len(told) > 5 else "")
        return f" ({words})" if words else ""


def list_images(root: str, found: Found, listing: Listing = USUAL) -> Iterator[pa.RecordBatch]:
    """Batches of `schema.LISTING`, sorted by path as bytes; `found` is filled while they are taken.

    The split is what a folder says, as `layout_of` finds them, else "all". The label is the name of the folder that
    holds the file, or of the one that `listing.label_level` says. Listed are files named as images, or without an
    extension; the rest is counted in `found.skipped`, with what lies in folders of tools, and links that lead out of
    `root` or in circles. The folder `listing.leave_out`, where results go, is passed over. A pack gives the rows of
    what it was made of.

    Raises:
        InputError: `root` is no folder, a folder in it cannot be read, or it is not clear what is a split.
    """
    check_folder(root)
    for rows in source_of(settled(root)).rows(found, listing):
        if listing.splits_from == "auto":
            found.strays.check(root)
        yield rows


def folder_rows(root: str, found: Found, listing: Listing) -> Iterator[pa.RecordBatch]:
    """`list_images` of a folder."""
    top = os.path.realpath(root)
    layout = found.layout = listing.layout(root, lambda above: _look(top, above))
    rows: list[tuple[str, str, str, int, int]] = []
    for folder, name, is_followed in _walk(root, listing):
        if not is_followed:
            found.skip_link(folder.path_of(name))
            continue
        if skipped := _skipped(folder, name, layout, all_files=listing.all_files):
            found.skipped[skipped] += 1
            continue
        split = layout.split_of(folder.names_above)
        label = layout.label_of(folder.names_above, folder.top)
        rows.append((folder.path_of(name), split, label, *_facts(folder.place + name)))
        found.add_image(split, folder.text)
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
    return (name for folder, name, is_followed in _walk(root, USUAL) if is_followed and not folder.tools)


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


def check_links(place: str, found: Found) -> None:
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

    def __init__(self, top: bytes, prefix: bytes, place: bytes, tools: str | None = None) -> None:
        self.prefix, self.place = prefix, place
        self._text = to_text(prefix)
        self.text = self._text.rstrip("/")
        self._is_plain = self._text == prefix.decode(errors="replace")
        names, self.links = _scan(place)
        self.names = iter(names)
        self.names_above = tuple(to_text(name) for name in prefix.split(b"/")[:-1])
        # What it is counted as, if it is no folder of images.
        self.tools = RESULTS if os.fsencode(f"{STATE}/") in names else tools or tools_folder(self.names_above[-1:])
        self.top = to_text(os.path.basename(top.rstrip(b"/")))

    def path_of(self, name: bytes) -> str:
        text = to_text(name)
        return self._text + text if self._is_plain and len(text) == len(name) else to_text(self.prefix + name)


def _walk(root: str, listing: Listing) -> Iterator[tuple[_Folder, bytes, bool]]:
    """Every file below `root` by folder and name, in the order of the paths' bytes, and whether it is to be taken.

    A link is, if it leads to somewhere below `root`, or anywhere with `follow_links`; but not to a folder that holds
    it, and no folder outside of `root` is entered twice, so that links among folders come to an end.
    """
    top = os.fsencode(os.path.realpath(root)).rstrip(b"/") + b"/"
    leave_out = os.fsencode(os.path.realpath(listing.leave_out)) if listing.leave_out else b""
    levels, entered = [_Folder(top, b"", top)], set[bytes]()
    while levels:
        folder = levels[-1]
        for name in folder.names:
            place, is_link = folder.place + name, name in folder.links
            if is_link:
                place = os.path.realpath(place.rstrip(b"/")) + (b"/" if name.endswith(b"/") else b"")
                is_outside = not place.startswith(top)
                holds_it = any(level.place.startswith(place) for level in levels) and name.endswith(b"/")
                if holds_it or (is_outside and not listing.follow_links) or place in entered:
                    yield folder, name.rstrip(b"/"), False
                    continue
                if is_outside and name.endswith(b"/"):
                    entered.add(place)
            if not name.endswith(b"/"):
                yield folder, name, True
            elif place.rstrip(b"/") != leave_out:
                levels.append(_Folder(top, folder.prefix + name, place, folder.tools))
                break
        else:
            levels.pop()


def _skipped(folder: _Folder, name: bytes, layout: Layout, *, all_files: bool) -> str | None:
    """What a file is counted as that is not listed."""
    if folder.tools == RESULTS or (folder.tools and not all_files):
        return folder.tools
    return None if all_files else skipped_as(name, beside_splits=layout.is_beside_splits(folder.names_above))


def _look(top: str, above: Sequence[str]) -> tuple[list[str], bool]:
    """The folders in a folder, as `Look` has it."""
    place = to_path(top, "/".join(above)) if above else os.fsencode(top)
    return _read(place, _folders_and_images)


def _folders_and_images(folder: bytes) -> tuple[list[str], bool]:
    """The folders in a folder, of which names of files are not kept: there may be a million."""
    folders, has_images = [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_folder(entry):
                folders.append(to_text(entry.name))
            else:
                has_images = has_images or has_image_name(entry.name)
    return folders, has_images


def has_image_name(name: bytes) -> bool:
    """Tell whether a file's name has the extension of an image."""
    return _extension(name[name.rfind(b".") :]) in IMAGE_EXTENSIONS if b"." in name else False


def _scan(folder: bytes) -> tuple[list[bytes], set[bytes]]:
    """The names in a folder, sorted, those of folders with a slash; and which of them are links.

    With the slash a folder sorts as its paths do: "a.b" comes before "a/b".
    """
    names, links = _read(folder, _entries)
    names.sort()
    return names, links


def _read(folder: bytes, read: Callable[[bytes], Got]) -> Got:
    try:
        return patiently(lambda: read(folder))
    except OSError as error:
        where = to_text(folder.rstrip(b"/"))
        raise InputError(f"the folder {where} cannot be read: {error.strerror}; mend or move it") from error


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
    if name.startswith(b"._"):  # what macOS keeps of a file on other file systems
        return "._*"
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
