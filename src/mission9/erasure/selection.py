"""A request to erase -> the paths of its images."""

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

_UNKNOWN = 0  # nanoseconds since 1970: the time is missing in the store, or could not be read

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErasureRequest:
    """A request to erase the images named in a file, or those older than `days`; with `with_source`, their files too.

    For a result with `pseudonyms`, ids are paths or pseudonyms.
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
            raise ConfigError(f"--days {self.days:g} is not a retention period: pass up to {_MAX_DAYS:,}")

    def public_name(self, path: str) -> str:
        """The name of an image in the public tables."""
        return self.pseudonyms.name(path) if self.pseudonyms else path


def chosen(
    request: ErasureRequest, output: Output, erased: Tombstones, source: DeletableImages | None
) -> tuple[list[str], int]:
    """The sorted paths of the requested images, and the number of images of unknown age.

    The `source`, if any, is searched too.

    Raises:
        InputError: an id names no image, or an image erased before is to be deleted and is missing from the source.
        OutputError: a plan is damaged or missing.
    """
    if not erased.is_pending:  # a killed erasure may legitimately have left no images
        check_is_listed(output)
    if request.why == "retain":
        names, undated = _old(request, output, erased, source)
        if undated:
            logger.warning("%s images are kept, since their age is unknown; erase them by --ids", f"{len(undated):,}")
        return sorted(names), len(undated)
    return sorted(_named(request, output, erased, source)), 0


def _old(
    request: ErasureRequest, output: Output, erased: Tombstones, source: DeletableImages | None
) -> tuple[set[str], set[str]]:
    """The images older than the limit, and those of unknown age, which are not counted as old.

    Images erased before are in no plan, but may be in the source.
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
            names.discard(path)  # a new image has replaced the erased one
        elif erased.has(path):
            names.add(path)
    return names, undated


def _named(request: ErasureRequest, output: Output, erased: Tombstones, source: DeletableImages | None) -> set[str]:
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
            f"{len(pathless):,} ids in {request.ids_file} (lines {lines}) are pseudonyms erased before and not in "
            f"{source.root}: remove these ids, or pass --input if the images are elsewhere"
        )
    return set(paths.values())


def _paths_of(wanted: set[str], paths: Iterable[str], request: ErasureRequest) -> dict[str, str]:
    """The paths that some ids refer to, among those passed."""
    return {name: path for path in paths for name in {path, request.public_name(path)} if name in wanted}
