"""A file of ids, a line each -> the paths of the images that they name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mission9.erasure.rewrite import raise_if_of_the_system
from mission9.errors import ConfigError, InputError, OutputError
from mission9.output.layout import SHARDS, STATE, done_file, plan_file
from mission9.output.local import Output
from mission9.output.tables import DAMAGE, row_groups
from mission9.storage.local.untrusted import MIB, read_file

_MAX_BYTES = 1024 * MIB
_MAX_TOLD = 5


@dataclass(frozen=True)
class Image:
    """An image of a result, as its plan lists it; `modified` is nanoseconds since 1970."""

    path: str
    modified: int


def read_ids(file: Path) -> list[str]:
    """The lines of a file of ids, as they are; empty ones are passed over.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    try:
        lines = read_file(file, _MAX_BYTES).decode("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the ids in {file} cannot be read: {error}") from error
    ids = [line.removesuffix("\r") for line in lines]
    if not any(ids):
        raise ConfigError(f"there are no ids in {file}: give a path of the tables a line")
    return ids


def images_of(output: Output) -> Iterator[Image]:
    """Every image that the plans of an output name; one may come more than once.

    Raises:
        OutputError: a plan is damaged: whom it names, nobody can tell.
    """
    for fingerprint in output.fingerprints():
        folder = output.shards(fingerprint)
        for plan in (done_file(folder), plan_file(folder)):
            try:
                yield from _listed(plan)
            except DAMAGE as error:
                raise_if_of_the_system(error)
                raise _unlisted(output, fingerprint) from error


def check_is_listed(output: Output) -> None:
    """Refuse where a result stands, and the plan is gone that lists its images: they would seem to be none.

    Raises:
        OutputError: it is.
    """
    fingerprint = str(output.last_report().get("fingerprint", ""))
    if fingerprint and not done_file(output.shards(fingerprint)).exists():
        raise _unlisted(output, fingerprint)


def _listed(plan: Path) -> Iterator[Image]:
    for group in row_groups(plan, ["path", "modified"]) if plan.exists() else ():
        yield from map(Image, group["path"].to_pylist(), group["modified"].to_pylist())


def _unlisted(output: Output, fingerprint: str) -> OutputError:
    place = f"{output.place}/{STATE}/{SHARDS}/{fingerprint}"
    return OutputError(
        f"a list of images in {place} is missing or damaged, so that nobody can tell which are to be erased, and none "
        "was: run again with the settings that it was made with, or delete that folder if it is of others than the "
        "result's, then give the same command again"
    )


def check_known(ids: Iterable[str], known: Collection[str], file: Path) -> None:
    """Refuse ids that name nothing: a mistake in one would leave an image where it is. They are told by their lines.

    Raises:
        InputError: there are such.
    """
    unknown = {name for name in ids if name and name not in known}
    if unknown:
        raise InputError(
            f"{len(unknown):,} ids in {file} name no image of this result (lines {lines_of(ids, unknown)}), nor one "
            "erased before: nothing was erased; give paths as the tables have them"
        )


def lines_of(ids: Iterable[str], some: Collection[str]) -> str:
    """The numbers of the lines that some ids are in."""
    lines = [str(number) for number, name in enumerate(ids, 1) if name in some]
    return ", ".join(lines[:_MAX_TOLD]) + (" and more" if len(lines) > _MAX_TOLD else "")
