"""Find the folder in an archive that holds Training and Test, from its paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from mission9.errors import InputError
from mission9.schema import TEST, TRAINING
from mission9.sources.layout import split_named

Variant = Literal["100x100", "original"]
DEFAULT_VARIANT: Variant = "100x100"

DEEPEST = 4  # folders above Training and Test

Folder = tuple[str, ...]

_RUN = "mission9 run --input FOLDER"


def find_layout(paths: Iterable[Folder], variant: Variant | None) -> Folder:
    """The one folder, at most four deep, that holds images of Training and of Test.

    Among several, it is that of `variant`, by default of 100x100, by the names of folders in all editions: those of
    2021 name only the images of original size.

    Raises:
        InputError: there is no such folder, or there are several.
    """
    found = _with_both_splits(paths)
    if not found:
        raise InputError(f"it holds no folder with both Training/ and Test/, not {DEEPEST} folders deep at least")
    if len(found) == 1 and variant is None:
        return found[0]
    wanted = variant or DEFAULT_VARIANT
    named = _named(found, wanted)
    if len(named) == 1:
        return named[0]
    there = ", ".join(_describe(folder) for folder in found)
    helps = [other for other in get_args(Variant) if len(_named(found, other)) == 1]
    remedy = f"give --variant {helps[0]}" if helps else f"unpack it, and give one of them: {_RUN}"
    raise InputError(f"it holds {there}, and not just one of them is {wanted}: {remedy}")


def _named(found: list[Folder], variant: Variant) -> list[Folder]:
    """The folders of a variant, by their names; if none is named 100x100, those that are not named original."""
    original = [folder for folder in found if "original" in _describe(folder).lower()]
    if variant == "original":
        return original
    others = [folder for folder in found if folder not in original]
    return [folder for folder in others if variant in _describe(folder).lower()] or others


def _with_both_splits(paths: Iterable[Folder]) -> list[Folder]:
    splits: dict[Folder, set[str]] = {}
    for path in paths:
        for depth, name in enumerate(path[: DEEPEST + 1]):
            split = split_named(name)
            if split and depth < len(path) - 1:
                splits.setdefault(path[:depth], set()).add(split)
    return sorted(folder for folder, names in splits.items() if {TRAINING, TEST} <= names)


def _describe(folder: Folder) -> str:
    return "/".join(folder) or "its top"
