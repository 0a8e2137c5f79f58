"""A request to erase -> the paths of the images that it means."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mission9.crypto.pseudonyms import Pseudonyms
from mission9.erasure.ids import check_is_listed, check_known, images_of, lines_of
from mission9.erasure.receipt import Why
from mission9.errors import ConfigError, InputError
from mission9.output.local import Output
from mission9.output.tombstones import Tombstones
from mission9.sources.deletion import DeletableImages

_DAY = 86_400 * 1_000_000_000  # nanoseconds
_MAX_DAYS = 36_500

_UNKNOWN = 0  # nanoseconds since 1970 of what a store tells no time of, or could not be looked at

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A request to erase: ids of a file, or all that is older than so many days; the images too, `with_source`.

    Of a result of `pseudonyms`, ids are paths or pseudonyms.
    """

    why: Why
    ids: Sequence[str] = ()
    ids_file: Path = Path()
    days: float = 0.0
    with_source: bool = False
    input: str | None = None
    pseudonyms: Pseudonyms | None = None

    def __post_init__(self) -> None:
        if self.why == "retain" and not 0 < self.days <= _MAX_DAYS:
            raise ConfigError(f"--days {self.days:g} is no time that images are kept: give up to {_MAX_DAYS:,}")

    def public_name(self, path: str) -> str:
        """Return what public tables call an image."""
        return self.pseudonyms.name(path) if self.pseudonyms else path


def chosen(
    request: Request, output: Output, erased: Tombstones, source: DeletableImages | None
) -> tuple[list[str], int]:
    """Return the paths of the images that a request means, sorted, and how many images have no known time.

    They are looked for in the `source` too, if there is one.

    Raises:
        InputError: an id names nothing, or an image that was erased before and is to be deleted is nowhere.
        OutputError: a plan is damaged, or missing.
    """
    if not erased.is_pending:  # a killed erasure may have left none, where nothing is to be left
        check_is_listed(output)
    if request.why == "retain":
        names, undated = _old(request, output, erased, source)
        if undated:
            logger.warning(
                "%s images are kept: nobody knows when they changed; erase them by --ids", f"{len(undated):,}"
            )
        return sorted(names), len(undated)
    return sorted(_named(request, output, erased, source)), 0


def _old(
    request: Request, output: Output, erased: Tombstones, source: DeletableImages | None
) -> tuple[set[str], set[str]]:
    """Images that changed last so long ago, and those of which that is not known, which are not old.

    What was erased before is in no plan any more, and may be in the source.
    """
    oldest = time.time_ns() - int(request.days * _DAY)
    names, undated = set[str](), set[str]()
    for image in images_of(output):
        if image.modified <= _UNKNOWN:
            undated.add(image.path)
        elif image.modified < oldest:
            names.add(image.path)
    for path, modified in source.files(output.place) if source else ():
        if modified <= _UNKNOWN:
            names.discard(path)
            undated.add(path)
        elif modified >= oldest:
            names.discard(path)  # what lies there now is another image
        elif erased.has(path):
            names.add(path)
    return names, undated


def _named(request: Request, output: Output, erased: Tombstones, source: DeletableImages | None) -> set[str]:
    wanted = {name for name in request.ids if name}
    paths = _paths_of(wanted, (image.path for image in images_of(output)), request)
    for name in wanted - paths.keys():
        was_path = erased.has(name) and erased.has(request.public_name(name))
        if was_path or (source and source.has(name)):
            paths[name] = name
    if source and wanted - paths.keys():
        paths |= _paths_of(wanted - paths.keys(), (path for path, _ in source.files(output.place)), request)
    pathless = {name for name in wanted - paths.keys() if erased.has(name)}  # pseudonyms
    check_known(request.ids, paths.keys() | pathless, request.ids_file)
    if source and pathless and not erased.is_pending:  # a killed erasure may have deleted them
        lines = lines_of(request.ids, pathless)
        raise InputError(
            f"{len(pathless):,} ids in {request.ids_file} (lines {lines}) were erased before, and nothing in "
            f"{source.root} has such a pseudonym: take these ids out, or give --input if the images are elsewhere"
        )
    return set(paths.values())


def _paths_of(wanted: set[str], paths: Iterable[str], request: Request) -> dict[str, str]:
    """The paths that some ids mean, of those given."""
    return {name: path for path in paths for name in {path, request.public_name(path)} if name in wanted}
