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
    """The non-empty lines of a file of ids, unchanged.

    Raises:
        ConfigError: it cannot be read, or contains no ids.
    """
    try:
        lines = read_file(file, _MAX_BYTES).decode("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the ids in {file}: {error}; pass a readable file") from error
    ids = [line.removesuffix("\r") for line in lines]
    if not any(ids):
        raise ConfigError(f"{file} contains no ids: write one path of the tables on each line")
    return ids


def images_of(output: Output) -> Iterator[Image]:
    """Every image in the plans of an output; images may repeat.

    Raises:
        OutputError: a plan is damaged, so its images are unknown.
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
    """Refuse a result without the plan that lists its images: they would seem to be none.

    Raises:
        OutputError: the plan is missing.
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
        f"the plan in {place} is missing or damaged; nothing was erased: rerun mission9 run with its settings, or "
        "delete it if no result uses it"
    )


def check_known(ids: Iterable[str], known: Collection[str], file: Path) -> None:
    """Refuse unknown ids: a typing error would leave an image in place. The message cites them by line number.

    Raises:
        InputError: an id is unknown.
    """
    unknown = {name for name in ids if name and name not in known}
    if unknown:
        raise InputError(
            f"{len(unknown):,} ids in {file} name no image of this result, nor an erased one (lines "
            f"{lines_of(ids, unknown)}); nothing was erased. Use the paths in the tables"
        )


def lines_of(ids: Iterable[str], some: Collection[str]) -> str:
    """The line numbers of some ids, as text."""
    lines = [str(number) for number, name in enumerate(ids, 1) if name in some]
    return ", ".join(lines[:_MAX_TOLD]) + (" and more" if len(lines) > _MAX_TOLD else "")
