"""A smaller dataset: a fixed share of every label's images, from those that a run would list."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from mission9.errors import ConfigError, InputError, OutputError
from mission9.sources.listing import Listing, ListingCounts
from mission9.sources.walk import check_is_folder, folder_rows
from mission9.storage.local.errors import translate_errors
from mission9.storage.local.files import atomic_path, make_folder, retry_io, sync_file_system
from mission9.storage.local.names import from_text

PERCENTAGES = (1, 5, 10, 25, 50)

_BATCH = 1000  # copies before each wait for the disk
_SUBSET = re.compile(r"(.*)-(\d+(?:\.\d+)?(?:e[+-]?\d+)?)pct", re.DOTALL)  # the names that make_subset gives

_NO_FILE = "(no file)"  # counted in place of an extension: a dangling link, a pipe, a device


class Subset(NamedTuple):
    """A finished subset: its folder, its number of images, and the other files of the dataset, by extension."""

    folder: Path
    images: int
    skipped: Mapping[str, int]


def make_subset(source: Path, target: Path, percentage: float, *, copy: bool = False) -> Subset:
    """Create the subset of `source` with `percentage` percent of each folder's images.

    It contains at least one image of each folder. The choice depends only on names, and a larger percentage includes
    all images of a smaller one. Existing images stay unchanged. New images are hard links to the source's, or copies if
    the file system has no hard links, or with `copy`.

    Raises:
        InputError: `source` is not a folder, holds no images, or a folder in it cannot be read.
        OutputError: `target` is inside the dataset, or cannot be created.
        StorageError: an image cannot be read or written.
        ConfigError: the percentage is not above 0 and at most 100.
    """
    if not 0 < percentage <= 100:
        raise ConfigError(f"percentage = {percentage}: give more than 0 and at most 100")
    check_is_folder(str(source))
    if target.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{target} is inside the dataset: give a folder outside it with --output")
    folder, found = target / f"{source.resolve().name}-{percentage:g}pct", ListingCounts()
    chosen = [image for images in _by_folder(source, found) for image in _first(images, percentage)]
    if not chosen:
        raise InputError(
            f"there are no images in {source} ({found.skipped.total()} other files); give the folder that holds "
            "Training/ and Test/ with --input"
        )
    try:
        make_folder(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}; give another --output") from error
    with translate_errors(folder):
        _place(source, folder, chosen, copy=copy)
    return Subset(folder, len(chosen), found.skipped)


def list_subsets(target: Path) -> dict[str, int]:
    """The subsets in `target` and their numbers of images, by dataset, the smallest first."""
    if not target.is_dir():
        return {}
    found = [(match, path) for path in target.iterdir() if path.is_dir() and (match := _SUBSET.fullmatch(path.name))]
    folders = [path for match, path in sorted(found, key=lambda pair: (pair[0][1], float(pair[0][2])))]
    return {str(folder): sum(len(images) for images in _by_folder(folder, ListingCounts())) for folder in folders}


def _by_folder(source: Path, found: ListingCounts) -> Iterable[list[str]]:
    """The images' paths below `source`, folder by folder; `found` counts the other files."""
    folders: dict[str, list[str]] = defaultdict(list)
    for batch in folder_rows(str(source), found, Listing(splits_from="folders")):
        for name, size in zip(batch["path"].to_pylist(), batch["bytes"].to_pylist(), strict=True):
            path = os.fsdecode(from_text(name))
            if size or os.path.isfile(source / path):
                folders[os.path.dirname(path)].append(path)
            else:
                found.skipped[_NO_FILE] += 1
    return folders.values()


def _first(images: list[str], percentage: float) -> list[str]:
    """The first images in an order that depends only on their paths; longer selections begin with shorter ones."""
    count = max(1, round(len(images) * percentage / 100))
    return sorted(images, key=lambda image: hashlib.sha256(os.fsencode(image)).digest())[:count]


def _place(source: Path, folder: Path, images: list[str], *, copy: bool) -> None:
    """Add missing images to a folder: each appears complete, and all of them are on the disk at the end."""
    missing = [image for image in images if not os.path.lexists(folder / image)]
    to_copy = [image for image in missing if copy or not _is_linked(source / image, folder / image)]
    for start in range(0, len(to_copy), _BATCH):
        with ExitStack() as copies:
            for image in to_copy[start : start + _BATCH]:
                make_folder((folder / image).parent)
                _copy(source / image, copies.enter_context(atomic_path(folder / image)))
            sync_file_system(folder)  # before the renames: the next call does not copy existing names again
    sync_file_system(folder)


def _is_linked(source: Path, target: Path) -> bool:
    """Hard-link an image, or the target of a link; return False if the file systems differ or have no hard links."""
    make_folder(target.parent)
    try:
        os.link(source.resolve(), target)
    except OSError:
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    retry_io(lambda: shutil.copy2(source.resolve(), target))
