"""A finished result -> `report.html`, a self-contained page that needs neither network nor server.

sample              the images that are compared, and those that are shown
neighbours          nearest neighbours of images
neighbour_accuracy  labels predicted by the nearest neighbours; images whose neighbours have another label
identical           identical files under several labels or in several splits
thumbnails          images -> small pictures on sheets, of pixels only
tables              the texts of the page
payload             the data of the page's scripts, as JSON
text                safe display of labels, paths and messages
render              the page: template, style and scripts, each allowed by its hash
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from mission9.html_report.tables import Findings, make_tables
from mission9.html_report.thumbnails import Thumbnails, make_thumbnails, no_thumbnails
from mission9.output.layout import PAGE
from mission9.output.report_file import is_ours, run_of, sealed
from mission9.redact import shown
from mission9.results.reader import Results
from mission9.sources import resolve_root
from mission9.sources.base import Root
from mission9.storage.local.files import remove_file, write_atomic
from mission9.storage.location import local_path

logger = logging.getLogger(__name__)

CLICKED_NEIGHBOURS = 8  # shown after a click on the map


def write_report(results: Results, file: Path, images: str | None = None) -> dict[str, float]:
    """Write the page to `file`, atomically; return the seconds of each part.

    `images` is the place of the images, by default the folder that the run read. A bucket or a server is accessed only
    if `images` names it, since the result is untrusted.

    Raises:
        SetupError: plotly or jinja2 is not installed.
        OutputError: the result is damaged, another has replaced it, or `file` was not written by mission9.
    """
    check_packages()
    if results.report.encrypted:
        logger.warning("%s shows the content of encrypted tables in clear: store it for their readers only", file)
    if os.path.lexists(file) and not is_ours(file):
        raise OutputError(f"{file} was not written by mission9 and would be overwritten: move it away")
    seconds: dict[str, float] = {}
    with _timed(seconds, "sample"):
        sample = draw_sample(results)
        shown = sample.images.take(pa.array(sample.shown))
    # With pseudonyms, a picture would reveal its image.
    root = None if results.report.pseudonyms else _root(images, results.report.config["input"])
    with ThreadPoolExecutor(1) as beside:  # other processes decode
        pictures = beside.submit(_thumbnails, root, shown, results.report.config["max_pixels"])
        with _timed(seconds, "compare"):
            judgement, why_not = _judged(results, sample)
            neighbours, distances = nearest_others(sample.pca[sample.shown], CLICKED_NEIGHBOURS)
            odd = at_odds(shown["label"].to_numpy(), neighbours[:, :NEIGHBOURS])
            groups = identical_images(results, sample)
        with _timed(seconds, "thumbnails"):
            thumbnails = pictures.result()
    with _timed(seconds, "write"):
        found = Findings(results, sample, judgement, why_not, odd, neighbours, groups, thumbnails)
        payload = make_payload(found, shown, distances)
        _put(sealed(render(make_tables(found, shown), payload)), file, results)
    return seconds


def _thumbnails(root: Root | None, shown: pa.Table, max_pixels: int) -> Thumbnails:
    """Thumbnails of the images, or none without a root or readable images."""
    if root is not None:
        try:
            return make_thumbnails(root, shown, max_pixels)
        except Mission9Error as error:
            logger.warning("no thumbnails: %s", error)
    return no_thumbnails(len(shown))


def _judged(results: Results, sample: Sample) -> tuple[Judgement | None, str]:
    """The accuracy of a result, or the reason for none."""
    try:
        return judge(results, sample), ""
    except InputError as error:
        return None, str(error)


def _root(given: str | None, of_run: str) -> Root | None:
    """The root of the images; None if it is unknown, or must not be accessed: the report does without."""
    images = given or of_run
    if not given and local_path(of_run) is None:
        place = shown(of_run)
        logger.warning("no thumbnails: the result names %s, which is read only with --input %s", place, place)
        return None
    if not given:
        logger.info("thumbnails of the images in %s, named in the result", shown(of_run))
    try:
        return resolve_root(images)
    except Mission9Error as error:
        logger.warning("no thumbnails: %s", error)
        return None


def _put(page: bytes, file: Path, results: Results) -> None:
    """Write the page, unless another result has replaced its own: no result may have the page of another."""
    if results.is_current:
        write_atomic(file, page)
    if not results.is_current:
        if run_of(file) == results.report.run_id:
            remove_file(file)
        raise OutputError(f"another result replaced the one in {results.root} during this command: rerun it")


def write_report_if_possible(root: Path, images: str | None) -> None:
    """Write the page of the result in a folder into it; on failure, log a warning with the command to retry."""
    try:
        seconds = write_report(Results.of(root), root / PAGE, images)
    except Exception as error:  # whatever it is, the result is complete without the page
        words = shown(str(error) or type(error).__name__)
        logger.warning("no %s: %s. The results are complete; to retry: mission9 report %s", PAGE, words, root)
    else:
        logger.info("report: %s (%.1f s)", root / PAGE, sum(seconds.values()))


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[part] = round(time.monotonic() - start, 3)
