"""Paths in an archive -> the folder among them that holds Training and Test."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from mission9.errors import InputError
from mission9.schema import TEST, TRAINING
from mission9.stages.layout import split_named

Variant = Literal["100x100", "original"]
DEFAULT_VARIANT: Variant = "100x100"

DEEPEST = 4  # folders above Training and Test

Folder = tuple[str, ...]


def find_layout(paths: Iterable[Folder], variant: Variant | None) -> Folder:
    """The one folder, at most four deep, that holds images of Training and of Test.

    Where there are several, that of `variant`, by default of 100x100, as their folders are named in all editions.

    Raises:
        InputError: there is none, or no single one.
    """
    found = _with_both_splits(paths)
    if not found:
        raise InputError(f"it holds no folder with both Training/ and Test/, not {DEEPEST} folders deep at least")
    wanted = variant or DEFAULT_VARIANT
    others = {"100x100": "original", "original": "100x100"}
    named = [folder for folder in found if wanted in _told(folder).lower()]
    if not named and len(found) == 1 and wanted == DEFAULT_VARIANT:
        named = [folder for folder in found if others[wanted] not in _told(folder).lower() or variant is None]
    if len(named) == 1:
        return named[0]
    there = ", ".join(_told(folder) for folder in found)
    if len(found) > 1 and variant is None:
        raise InputError(f"it holds {there}: say which with --variant 100x100 or --variant original")
    raise InputError(f"it holds {there}, and not just one of them is {wanted}: give another --variant, or --archive")


def _with_both_splits(paths: Iterable[Folder]) -> list[Folder]:
    splits: dict[Folder, set[str]] = {}
    for path in paths:
        for depth, name in enumerate(path[: DEEPEST + 1]):
            split = split_named(name)
            if split and depth < len(path) - 1:
                splits.setdefault(path[:depth], set()).add(split)
    return sorted(folder for folder, names in splits.items() if {TRAINING, TEST} <= names)


def _told(folder: Folder) -> str:
    return "/".join(folder) or "its top"
