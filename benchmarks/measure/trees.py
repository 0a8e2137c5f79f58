"""Trees of as many images as wanted, made of those at hand by hard links: they take no room."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from mission9.datasets.demo import write_sample
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.storage.local.files import link_or_copy
from mission9.storage.local.names import to_path

# Fewer than ext4's 65,000 names a file; the file at hand may have some already.
LINKS_A_FILE = 60_000


def jpegs(folder: Path) -> list[str]:
    """The relative paths of the images that every program compared takes: those that end in .jpg."""
    root = find_root(str(folder))
    paths = [path for batch in list_images(root, ListingCounts()) for path in batch["path"].to_pylist()]
    found = [path for path in paths if path.endswith(".jpg")]
    if not found:
        raise SystemExit(f"there are no .jpg files in {folder}")
    return found


def images_at_hand(given: Path | None, default: Path, work: Path) -> tuple[Path, str]:
    """The folder of images to measure with, and how to call it: the given one, the usual one, or a generated one."""
    folder = given or default
    if given is not None or folder.is_dir():
        return folder, folder.name
    drawn = work / "drawn"
    count = write_sample(drawn)
    return drawn, f"generated sample of {count:,} pictures"


def warm(folder: Path, paths: Iterable[str]) -> None:
    """Read every file once, so that whoever comes first does not pay for the disk."""
    for path in paths:
        Path(os.fsdecode(to_path(str(folder), path))).read_bytes()


def make_tree(source: Path, paths: Sequence[str], count: int, target: Path) -> Path:
    """A folder of `count` images: a share of every label, or all of them again and again under new names."""
    root = os.path.realpath(source)
    for path, name in islice(_names(paths, count), count):
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(Path(os.fsdecode(to_path(root, path))), file)
    return target


def stratified(paths: Sequence[str], count: int) -> list[str]:
    """`count` of the paths, of every folder its share; a larger count takes all that a smaller one does."""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        folders[os.path.dirname(path)].append(path)
    ranks = {path: (at + 0.5) / len(names) for names in folders.values() for at, path in enumerate(names)}
    return sorted(sorted(paths, key=lambda path: (ranks[path], path))[:count])


def _names(paths: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """Each path with the name that it gets in the tree."""
    if count <= len(paths):
        yield from ((path, path) for path in stratified(paths, count))
        return
    if count > LINKS_A_FILE * len(paths):
        raise SystemExit(f"{count:,} links need more than {len(paths):,} images: give more with --images")
    again = 0
    while True:
        for path in paths:
            folder, name = os.path.split(path)
            yield path, os.path.join(folder, f"again{again}_{name}" if again else name)
        again += 1


def make_flat(source: Path, paths: Sequence[str], count: int, target: Path, *, folder_size: int) -> Path:
    """`count` images in numbered folders of `folder_size`, for listings."""
    root = os.path.realpath(source)
    if count > LINKS_A_FILE * len(paths):
        raise SystemExit(f"{count:,} links need more than {len(paths):,} images: give more with --images")
    files = [Path(os.fsdecode(to_path(root, path))) for path in paths]
    for number in range(count):
        folder = target / "Training" / f"{number // folder_size:06d}"
        if number % folder_size == 0:
            folder.mkdir(parents=True)
        link_or_copy(files[number % len(files)], folder / f"{number:07d}.jpg")
    return target
