"""Images -> a pack of them: listed, planned, written by worker processes, then shown by the manifest."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from mission9.errors import ConfigError, InputError, OutputError, StorageError
from mission9.options import MAX_BYTES
from mission9.output.tables import TableWriter, row_groups
from mission9.pack.errors import Damaged
from mission9.pack.place import locked
from mission9.pack.plan_pack import PackPlan
from mission9.pack.publish import PackReport, show_pack
from mission9.pack.resume import plan_rest
from mission9.pack.write_part import WriteParts
from mission9.redact import redact
from mission9.runners.base import InProcessRunner, Runner
from mission9.schema import LISTING
from mission9.sources import resolve_root
from mission9.sources.list_images import check_folder, check_links, list_images
from mission9.sources.listing import USUAL, Listing, ListingCounts
from mission9.sources.pack.layout import done_file
from mission9.storage.file_store import CheckLock, FileStore, file_store
from mission9.storage.local.errors import translate_errors
from mission9.storage.local.names import to_text
from mission9.storage.local.scratch import scratch_folder
from mission9.storage.location import real_root

logger = logging.getLogger(__name__)


def make_pack(
    input: str,  # noqa: A002 (as the command has it)
    output: str,
    *,
    listing: Listing = USUAL,
    overwrite: bool = False,
    workers: int | None = None,
) -> PackReport:
    """Pack the images below `input` into a pack at `output`, or bring the pack that is there up to date.

    What it holds of images that are as they were stays, unless `overwrite`; what a killed call has done counts, too.
    The pack that stands is whole at any moment: the new one takes its place by the manifest, which is written last.

    Raises:
        UsageError: the request cannot be carried out.
        StorageError: a disk or a bucket fails.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers} can do nothing: give 1 or more")
    store = file_store(output)
    check_folder(input)
    root = resolve_root(input)
    if real_root(input) == real_root(output):
        raise OutputError(f"the pack would lie among the images in {input}: give another --output")
    with translate_errors(output, input), locked(store) as check, scratch_folder() as scratch:
        found = ListingCounts()
        batches = list_images(root, found, replace(listing, exclude=real_root(output)))
        _write_listing(scratch / "listing.parquet", batches, input, found)
        report = PackReport(str(store), _told(real_root(input)), found.listed, found.skipped)
        is_shown = False
        while not is_shown:
            plan = plan_rest(store, scratch, overwrite=overwrite and not report.read)
            logger.info("pack: %s images, %s to read", f"{report.listed:,}", f"{plan.todo_images:,}")
            report.read += plan.todo_images
            report.gone += plan.gone
            _write_parts(root, store, plan, workers)
            is_shown = _shown(store, plan, report, check)
    return report


def make_pack_by_spark(
    input: str,  # noqa: A002 (as the command has it)
    output: str,
    *,
    listing: Listing = USUAL,
) -> PackReport:
    """As `make_pack`, of what only Java can read: by Spark, everything anew.

    Raises:
        UsageError: the request cannot be carried out.
        SetupError: there is no Spark.
        TaskError: Spark's job fails.
        StorageError: a disk or a bucket fails.
    """
    from mission9.pack.spark_pack import write_by_spark  # loads what other packs do not need

    store = file_store(output)
    images, pack = real_root(input), real_root(output)
    if pack == images or pack.startswith(f"{images.rstrip('/')}/"):
        raise OutputError(f"the pack would lie among the images in {input}, and Spark read it: give another --output")
    with translate_errors(output), locked(store) as check, scratch_folder() as scratch:
        written = write_by_spark(input, store, scratch, listing)
        report = PackReport(str(store), _told(input), skipped=written.skipped, read=written.plan.todo_images)
        for group in row_groups(written.plan.images, columns=["split"]):
            report.splits.update(group["split"].to_pylist())
        _shown(store, written.plan, report, check)
    return report


def _write_listing(file: Path, batches: Iterator[pa.RecordBatch], place: str, found: ListingCounts) -> None:
    with TableWriter(file, LISTING) as writer:
        for batch in batches:
            writer.write_batch(batch)
    check_links(place, found)
    if not found.listed:
        raise InputError(f"there are no images in {place}{found.in_brackets()}; give another --input")


def _write_parts(root: str, store: FileStore, plan: PackPlan, workers: int | None) -> None:
    task = WriteParts(root=root, todo=plan.todo, parts=tuple(plan.parts), store=store, max_bytes=MAX_BYTES)
    runner: Runner = InProcessRunner()
    if len(plan.parts) < 2:
        runner.map(task, len(plan.parts))
        return
    from mission9.devices import workers_here
    from mission9.runners.local import LocalRunner

    with LocalRunner(min(workers or workers_here("cpu"), len(plan.parts))) as processes:
        processes.map(task, len(plan.parts))


def _shown(store: FileStore, plan: PackPlan, report: PackReport, check_lock: CheckLock) -> bool:
    """Show what is done; where a part that was done before does not tell what is in it, it is to be made anew.

    Raises:
        StorageError: one that was made this moment does not.
    """
    try:
        show_pack(store, plan, report, check_lock)
    except Damaged as damage:
        if damage.name not in map(done_file, plan.kept):
            raise StorageError(f"{store}/{damage}: see to it, then pack again with --overwrite") from damage
        logger.warning("%s: %s, and that part is made anew", store, damage)
        store.remove([damage.name])
        return False
    return True


def _told(place: str) -> str:
    """A place as a manifest may hold it."""
    return to_text(os.fsencode(redact(place)))
