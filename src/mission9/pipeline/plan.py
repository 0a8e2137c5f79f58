"""Plan a run: list its images, and divide those without an outcome into shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pyarrow as pa

from mission9.config import RunConfig
from mission9.errors import InputError, OutputError
from mission9.models.extraction import Extraction
from mission9.output.local import Output
from mission9.output.run_report import Report, SplitCounts
from mission9.output.tombstones import Tombstones
from mission9.pca import check_components
from mission9.pipeline.preflight import RunRequest
from mission9.schema import FEATURES
from mission9.sources.list_images import check_links, list_images
from mission9.sources.listing import Listing, ListingCounts, fitting_split
from mission9.stages.plan_shards import Plan, plan_shards
from mission9.stages.reuse import ReusableShards, nothing_is_as_it_was
from mission9.stages.verify_content import VerifyContent
from mission9.storage.location import real_root

logger = logging.getLogger(__name__)

# This process extracts up to this many images before Spark could start.
FEW_IMAGES = 256


def make_plan(request: RunRequest, extraction: Extraction, output: Output, report: Report) -> Plan:
    """List the images of a run, find the outcomes of earlier runs, and divide the remaining images into shards.

    Raises:
        InputError: there are no images.
        OutputError: the results would be written among the images.
        ConfigError: there are too few images for the requested components.
    """
    config, found, folder = request.config, ListingCounts(), output.shards(extraction.fingerprint)
    if real_root(config.input) == output.place:
        raise OutputError(f"the results would be among the images in {config.input}: pass another --output")
    output.download_shards(extraction.fingerprint)
    rows = images_of(request, output, found)
    check = VerifyContent(request.root, folder, extraction.max_bytes) if config.verify_content else None
    known = ReusableShards(folder, check=nothing_is_as_it_was if config.overwrite else check)
    plan = plan_shards(_checked(rows, found, config), known, folder, extraction.shard_images)
    output.upload_plan(extraction.fingerprint, plan.images, plan.todo, name_of(plan))
    report.found, report.skipped, report.shards = found.total, dict(found.skipped), len(plan.shards)
    report.splits = {split: SplitCounts(listed=count) for split, count in sorted(found.listed.items())}
    report.fitted_on = "" if config.pca_model else fitting_split(found.listed)
    report.layout = found.understood
    logger.info("list: %s images in %s: %s", f"{report.listed:,}", config.input, report.layout)
    return plan


def images_of(request: RunRequest, output: Output, found: ListingCounts) -> Iterator[pa.RecordBatch]:
    """The images of a run: all images of its input, except erased ones."""
    rows = list_images(request.root, found, Listing.of(request.config, exclude=output.place))
    erased = Tombstones.of(output.state_files)
    if erased.is_pending:
        logger.warning("an erasure from %s was cut short: give the same mission9 erase again", request.config.output)
    return erased.exclude(rows, found)


def _checked(rows: Iterator[pa.RecordBatch], found: ListingCounts, config: RunConfig) -> Iterator[pa.RecordBatch]:
    """Yield the same rows, then refuse an unusable listing, before its plan replaces an earlier one."""
    yield from rows
    check_links(config.input, found)
    if not found.listed:
        raise InputError(f"there are no images in {config.input}{found.in_brackets()}; give another --input")
    if config.pca_model is None:
        check_components(config.components, found.listed[fitting_split(found.listed)], FEATURES)


def name_of(plan: Plan) -> str:
    """A name for the rows that a plan computes: workers of a killed run must not read those of the next run."""
    return plan.shards[0].key if plan.shards else "nothing"
