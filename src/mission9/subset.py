"""A smaller dataset: a share of every label's images, always the same ones, of those that a run would list."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mission9.disk.failures import storage_told
from mission9.disk.files import appearing, make_folder, patiently
from mission9.disk.names import from_text
from mission9.errors import ConfigError, InputError, OutputError
from mission9.stages.list_images import Found, check_is_folder, folder_rows

PERCENTAGES = (1, 5, 10, 25, 50)

_SUBSET = re.compile(r"(.*)-(\d+(?:\.\d+)?(?:e[+-]?\d+)?)pct", re.DOTALL)  # as make_subset names them

_NO_FILE = "(no file)"  # counted in the place of an extension: a link to nothing, a pipe, a device


class Subset(NamedTuple):
    """What was made: its folder, how many images are in it, and what of the dataset was no image, by extension."""

    folder: Path
    images: int
    skipped: Mapping[str, int]


def make_subset(source: Path, target: Path, percentage: float, *, copy: bool = False) -> Subset:
    """Make the subset of `source` with `percentage` percent of each folder's images.

    At least one image of each folder is taken. Which ones depends on their names alone, and a larger percentage takes
    all that a smaller one does. Images already there are left as they are. They are hard links to the source's, or
    copies where the file system has none, or with `copy`.

    Raises:
        InputError: `source` is no folder, holds no images, or a folder in it cannot be read.
        OutputError: `target` lies in the dataset, or cannot be made.
        StorageError: an image cannot be read or written.
        ConfigError: the percentage is not above 0 and at most 100.
    """
    if not 0 < percentage <= 100:
        raise ConfigError(f"percentage = {percentage}: give more than 0 and at most 100")
    check_is_folder(str(source))
    if target.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{target} lies in the dataset itself; give a folder beside it with --output")
    folder, found = target / f"{source.resolve().name}-{percentage:g}pct", Found()
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
    with storage_told(folder):
        for image in chosen:
            _place(source / image, folder / image, copy=copy)
    return Subset(folder, len(chosen), found.skipped)


def list_subsets(target: Path) -> dict[str, int]:
    """The subsets in `target` and their numbers of images, the smallest of each dataset first."""
    if not target.is_dir():
        return {}
    found = [(match, path) for path in target.iterdir() if path.is_dir() and (match := _SUBSET.fullmatch(path.name))]
    folders = [path for match, path in sorted(found, key=lambda pair: (pair[0][1], float(pair[0][2])))]
    return {str(folder): sum(len(images) for images in _by_folder(folder, Found())) for folder in folders}


def _by_folder(source: Path, found: Found) -> Iterable[list[str]]:
    """The images' paths below `source`, folder by folder; `found` tells what is none."""
    folders: dict[str, list[str]] = defaultdict(list)
    for batch in folder_rows(str(source), found, all_files=False, leave_out=""):
        for name, size in zip(batch["path"].to_pylist(), batch["bytes"].to_pylist(), strict=True):
            path = os.fsdecode(from_text(name))
            if size or os.path.isfile(source / path):
                folders[os.path.dirname(path)].append(path)
            else:
                found.skipped[_NO_FILE] += 1
    return folders.values()


def _first(images: list[str], percentage: float) -> list[str]:
    """The first images in an order that only their paths decide; longer choices begin with the shorter ones."""
    count = max(1, round(len(images) * percentage / 100))
    return sorted(images, key=lambda image: hashlib.sha256(os.fsencode(image)).digest())[:count]


def _place(source: Path, target: Path, *, copy: bool) -> None:
    if os.path.lexists(target):
        return
    source = source.resolve()  # of a link, the picture that it leads to
    make_folder(target.parent)
    if not copy:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without hard links
    with appearing(target) as whole:
        patiently(lambda: shutil.copy2(source, whole))
