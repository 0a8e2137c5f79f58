"""A folder -> its images, sorted by path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from mission9.errors import InputError
from mission9.schema import listed_time
from mission9.sources.layout import RESULTS, STATE, Layout, tools_folder
from mission9.sources.listing import USUAL, Listing, ListingCounts, Row, has_image_name, in_batches, skipped_as
from mission9.storage.local.files import is_transient, retry_io
from mission9.storage.local.names import to_path, to_text

Got = TypeVar("Got")


@in_batches
def folder_rows(root: str, found: ListingCounts, listing: Listing) -> Iterator[Row]:
    """`list_images` for a folder."""
    top = os.path.realpath(root)
    layout = found.layout = listing.layout(root, lambda above: _look(top, above))
    for folder, name, is_followed in _walk(root, listing):
        if not is_followed:
            found.skip_link(folder.path_of(name))
            continue
        if skipped := _skipped(folder, name, layout, all_files=listing.all_files):
            found.skipped[skipped] += 1
            continue
        split = layout.split_of(folder.names_above)
        label = layout.label_of(folder.names_above, folder.top)
        found.add_image(split, folder.text)
        yield folder.path_of(name), split, label, *_facts(folder.place + name)


def names_in(root: str) -> Iterator[bytes]:
    """The names of the files below a folder."""
    return (name for folder, name, is_followed in _walk(root, USUAL) if is_followed and not folder.tools)


def check_is_folder(root: str) -> None:
    """Refuse a path that is not a folder.

    Raises:
        InputError: it does not exist, or is a file.
    """
    if not os.path.exists(root):
        raise InputError(
            f"there is no folder {root}: pass the folder of your images with --input, or run mission9 fetch"
        )
    if not os.path.isdir(root):
        raise InputError(f"{root} is a file: pass the folder that holds Training/ and Test/, or the label folders")


class _Folder:
    """A folder on the way down: the data shared by its files, and its remaining entries.

    `prefix` is its path below the top, `place` its absolute path, both with a slash at the end. Names are stored as
    bytes, since the entries of `os.scandir` take ten times the memory, and there may be a million.
    """

    def __init__(self, top: bytes, prefix: bytes, place: bytes, tools: str | None = None) -> None:
        self.prefix, self.place = prefix, place
        self._text = to_text(prefix)
        self.text = self._text.rstrip("/")
        self._is_plain = self._text == prefix.decode(errors="replace")
        names, self.links = _scan(place)
        self.names = iter(names)
        self.names_above = tuple(to_text(name) for name in prefix.split(b"/")[:-1])
        # Its category in the counts, if it is not a folder of images.
        self.tools = RESULTS if os.fsencode(f"{STATE}/") in names else tools or tools_folder(self.names_above[-1:])
        self.top = to_text(os.path.basename(top.rstrip(b"/")))

    def path_of(self, name: bytes) -> str:
        text = to_text(name)
        return self._text + text if self._is_plain and len(text) == len(name) else to_text(self.prefix + name)


def _walk(root: str, listing: Listing) -> Iterator[tuple[_Folder, bytes, bool]]:
    """Every file below `root` by folder and name, sorted by the paths' bytes, and True if it is accepted.

    A link is accepted if it leads to a place below `root`, or anywhere with `follow_links`; but not to a folder that
    contains it, and no folder outside `root` is entered twice, so that chains of links end.
    """
    top = os.fsencode(os.path.realpath(root)).rstrip(b"/") + b"/"
    exclude = os.fsencode(os.path.realpath(listing.exclude)) if listing.exclude else b""
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
            elif place.rstrip(b"/") != exclude:
                levels.append(_Folder(top, folder.prefix + name, place, folder.tools))
                break
        else:
            levels.pop()


def _skipped(folder: _Folder, name: bytes, layout: Layout, *, all_files: bool) -> str | None:
    """The category under which a file is skipped; None if it is listed."""
    if folder.tools == RESULTS or (folder.tools and not all_files):
        return folder.tools
    return None if all_files else skipped_as(name, next_to_splits=layout.is_next_to_splits(folder.names_above))


def _look(top: str, above: Sequence[str]) -> tuple[list[str], bool]:
    """The folders in a folder, as a `Look` function."""
    place = to_path(top, "/".join(above)) if above else os.fsencode(top)
    return _read(place, _folders_and_images)


def _folders_and_images(folder: bytes) -> tuple[list[str], bool]:
    """The folders in a folder, and True if it contains an image; names of files are not kept, as there may be many."""
    folders, has_images = [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_folder(entry):
                folders.append(to_text(entry.name))
            else:
                has_images = has_images or has_image_name(entry.name)
    return folders, has_images


def _scan(folder: bytes) -> tuple[list[bytes], set[bytes]]:
    """The sorted names in a folder, those of folders with a slash; and the names that are links.

    With the slash a folder sorts like its paths: "a.b" comes before "a/b".
    """
    names, links = _read(folder, _entries)
    names.sort()
    return names, links


def _read(folder: bytes, read: Callable[[bytes], Got]) -> Got:
    try:
        return retry_io(lambda: read(folder))
    except OSError as error:
        where = to_text(folder.rstrip(b"/"))
        raise InputError(
            f"the folder {where} cannot be read: {error.strerror}; fix its permissions or disk, or move it"
        ) from error


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
    except OSError as error:  # a link to itself
        if is_transient(error):
            raise
        return False


def _facts(path: bytes) -> tuple[int, int]:
    try:
        facts = retry_io(lambda: os.stat(path))
    except OSError:  # gone, or a dangling link: reading it will report the reason
        return 0, 0
    return facts.st_size, listed_time(facts.st_mtime_ns)
