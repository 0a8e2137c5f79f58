"""A finished result -> `report.html`: one file to look at it, which needs neither network nor server.

sample       result -> the images that are compared, and of them those that are shown
neighbours   which images lie nearest to which
judge        labels told by the nearest neighbour; images at odds with theirs
identical    same bytes under several labels or in several splits
thumbnails   images -> small pictures on sheets, of pixels alone
tables       all that is text, as the page has it
payload      all that the page's scripts work with, as JSON
render       the page: template, style and scripts, each by its hash
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from mission9.errors import InputError, Mission9Error, OutputError
from mission9.html_report.identical import identical_images
from mission9.html_report.neighbour_accuracy import NEIGHBOURS, Judgement, at_odds, judge
from mission9.html_report.neighbours import nearest_others
from mission9.html_report.payload import make_payload
from mission9.html_report.render import check_packages, render
from mission9.html_report.sample import Sample, draw_sample
from mission9.html_report.tables import Found, make_tables
from mission9.html_report.thumbnails import Thumbnails, make_thumbnails, no_thumbnails
from mission9.output.layout import PAGE
from mission9.output.report_file import is_ours, run_of, sealed
from mission9.redact import shown as told
from mission9.results.reader import Results
from mission9.sources import resolve_root
from mission9.storage.local.files import remove_file, write_atomic
from mission9.storage.location import local_path

logger = logging.getLogger(__name__)

CLICKED_NEIGHBOURS = 8  # that a click on the map shows


def write_report(results: Results, file: Path, images: str | None = None) -> dict[str, float]:
    """Write the page to `file`, whole or not at all; return the seconds that each part took.

    `images` is where the images are; without it they are looked for in the folder that the run read. A bucket or a
    server is asked only where `images` names it, since somebody else may have made the result.

    Raises:
        SetupError: plotly or jinja2 is not installed.
        OutputError: a table of the result is missing or damaged, another took its place, or `file` is somebody else's.
    """
    check_packages()
    if results.report.encrypted:
        logger.warning("%s shows in clear what the encrypted tables hold: keep it where only its readers are", file)
    if os.path.lexists(file) and not is_ours(file):
        raise OutputError(f"{file} was not written by mission9, which would replace it: move it away")
    seconds: dict[str, float] = {}
    with _timed(seconds, "sample"):
        sample = draw_sample(results)
        shown = sample.images.take(pa.array(sample.shown))
    with _timed(seconds, "compare"):
        judgement, why_not = _judged(results, sample)
        neighbours, distances = nearest_others(sample.pca[sample.shown], CLICKED_NEIGHBOURS)
        odd = at_odds(shown["label"].to_numpy(), neighbours[:, :NEIGHBOURS])
        groups = identical_images(results, sample)
    with _timed(seconds, "thumbnails"):
        # Beside pseudonyms a picture would tell whose it is.
        root = None if results.report.pseudonyms else _root(images, results.report.config["input"])
        thumbnails = _thumbnails(root, shown, results.report.config["max_pixels"])
    with _timed(seconds, "write"):
        found = Found(results, sample, judgement, why_not, odd, neighbours, groups, thumbnails)
        payload = make_payload(found, shown, distances)
        _put(sealed(render(make_tables(found, shown), payload)), file, results)
    return seconds


def _thumbnails(root: str | None, shown: pa.Table, max_pixels: int) -> Thumbnails:
    """Return small pictures of the images, or none where there is no root, or what lies there cannot be had."""
    if root is not None:
        try:
            return make_thumbnails(root, shown, max_pixels)
        except Mission9Error as error:
            logger.warning("no thumbnails: %s", error)
    return no_thumbnails(len(shown))


def _judged(results: Results, sample: Sample) -> tuple[Judgement | None, str]:
    """Judge a result, or say why that cannot be."""
    try:
        return judge(results, sample), ""
    except InputError as error:
        return None, str(error)


def _root(given: str | None, of_run: str) -> str | None:
    """Return where images lie; None where that is not known, or nobody may be asked: a report does without."""
    images = given or of_run
    if not given and local_path(of_run) is None:
        place = told(of_run)
        logger.warning("no thumbnails: the result names %s, which is read with --input %s alone", place, place)
        return None
    if not given:
        logger.info("thumbnails of the images in %s, which the result names", told(of_run))
    try:
        return resolve_root(images)
    except Mission9Error as error:
        logger.warning("no thumbnails: %s", error)
        return None


def _put(page: bytes, file: Path, results: Results) -> None:
    """Write the page, unless another result takes the place of its own: none may stand beside one that it is not of."""
    if results.stands:
        write_atomic(file, page)
    if not results.stands:
        if run_of(file) == results.report.run_id:
            remove_file(file)
        raise OutputError(
            f"another result took the place of the one in {results.root} meanwhile: give the command again"
        )


def write_report_if_possible(root: Path, images: str | None) -> None:
    """Write the page of the result in a folder into it; where that fails, a warning says how to have it later."""
    try:
        seconds = write_report(Results.of(root), root / PAGE, images)
    except Exception as error:  # whatever it is, the result is whole without
        words = told(str(error) or type(error).__name__)
        logger.warning("no %s: %s. The results are whole; have it later: mission9 report %s", PAGE, words, root)
    else:
        logger.info("report: %s (%.1f s)", root / PAGE, sum(seconds.values()))


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[part] = round(time.monotonic() - start, 3)
