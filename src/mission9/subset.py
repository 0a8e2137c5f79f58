"""A smaller dataset: a share of every label's images, always the same ones. Standard library only."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from mission9.errors import ConfigError, InputError, OutputError
from mission9.names import IMAGE_EXTENSIONS

PERCENTAGES = (1, 5, 10, 25, 50)


def make_subset(source: Path, target: Path, percentage: float, *, copy: bool = False) -> tuple[Path, int]:
    """Make the subset of `source` with `percentage` percent of each folder's images; return its folder and its images.

    At least one image of each folder is taken. Which ones depends on their names alone, and a larger percentage takes
    all that a smaller one does. Images already there are left as they are. They are hard links to the source's, or
    copies where the file system has none, or with `copy`.

    Raises:
        InputError: `source` is no folder, or holds no images.
        OutputError: `target` lies in the dataset, or cannot be written.
        ConfigError: the percentage is not above 0 and at most 100.
    """
    if not 0 < percentage <= 100:
        raise ConfigError(f"percentage = {percentage}: give more than 0 and at most 100")
    if not source.is_dir():
        raise InputError(f"there is no folder {source}; give the dataset with --input")
    if target.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{target} lies in the dataset itself; give a folder beside it with --output")
    folder = target / f"{source.resolve().name}-{percentage:g}pct"
    count = 0
    for name, _, files in os.walk(source):
        images = [file for file in files if os.path.splitext(file)[1].lower() in IMAGE_EXTENSIONS]
        relative = Path(name).relative_to(source)
        for image in _chosen(relative, images, percentage):
            try:
                _place(source / relative / image, folder / relative / image, copy=copy)
            except OSError as error:
                raise OutputError(f"{folder / relative / image} cannot be made: {error.strerror}") from error
            count += 1
    if not count:
        raise InputError(
            f"there are no images in {source}; give the folder that holds Training/ and Test/ with --input"
        )
    return folder, count


def list_subsets(target: Path) -> dict[str, int]:
    """The subsets in `target` and their numbers of images."""
    if not target.is_dir():
        return {}
    folders = sorted(folder for folder in target.iterdir() if folder.is_dir() and folder.name.endswith("pct"))
    return {str(folder): sum(len(files) for _, _, files in os.walk(folder)) for folder in folders}


def _chosen(folder: Path, images: list[str], percentage: float) -> list[str]:
    """The first images in an order that only their names decide; longer choices begin with the shorter ones."""
    if not images:
        return []
    count = max(1, round(len(images) * percentage / 100))
    return sorted(images, key=lambda image: hashlib.sha256(os.fsencode(folder / image)).digest())[:count]


def _place(source: Path, target: Path, *, copy: bool) -> None:
    if os.path.lexists(target):
        return
    source = source.resolve()  # of a link, the picture that it leads to
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without hard links
    partial = target.with_name(f".{target.name}.part")
    shutil.copy2(source, partial)
    partial.replace(target)
