"""Inputs and finished runs that tests share: made once where they are read, and copied where they are changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mission9 import RunConfig
from mission9.datasets.demo import SPLITS, VARIETIES, draw, jpeg

# The input of the fixture `tree`: fifteen images.
TREE = (("Training/a", 6), ("Training/b", 6), ("Test/a", 2), ("Test/b", 1))


def write_tree(root: Path, pictures: Sequence[bytes]) -> Path:
    """Write the input of the fixture `tree` below `root`."""
    for folder, count in TREE:
        (root / folder).mkdir(parents=True)
        for n in range(count):
            (root / folder / f"{n}.jpg").write_bytes(pictures[n])
    return root


def write_fruits(root: Path, *, varieties: int, training: int, test: int) -> Path:
    """Write the first pictures of the first varieties of the generated sample below `root`."""
    for stream, (split, count) in enumerate(zip(SPLITS, (training, test), strict=True)):
        for variety in VARIETIES[:varieties]:
            folder = root / split / variety.name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}_100.jpg").write_bytes(jpeg(draw(variety, stream=stream, number=number)))
    return root


def copy_of(finished: RunConfig, folder: Path) -> RunConfig:
    """A finished run with its input, copied to `folder`/images and `folder`/out: a next run knows the copies."""
    return with_changes(
        finished,
        input=str(copy_tree(Path(finished.input), folder / "images")),
        output=str(copy_tree(Path(finished.output), folder / "out")),
    )


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a folder with its files' times, by which images are known; names of one file are of one file there too."""
    copies: dict[int, str] = {}

    def copy(file: str, to: str) -> None:
        facts = os.lstat(file)
        if facts.st_nlink > 1 and facts.st_ino in copies:  # a table of features and the shard that it is of
            os.link(copies[facts.st_ino], to)
        else:
            copies[facts.st_ino] = to
            shutil.copy2(file, to)

    shutil.copytree(source, target, symlinks=True, copy_function=copy)
    return target


def with_changes(config: RunConfig, **settings: object) -> RunConfig:
    """The same settings but for some."""
    return RunConfig(**{**config.model_dump(), **settings})
