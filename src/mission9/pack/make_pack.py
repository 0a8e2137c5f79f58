"""Images -> a pack of them: listed, planned, written by worker processes, then published by the manifest."""

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
from mission9.sources import find_root
from mission9.sources.base import Root
from mission9.sources.list_images import check_links, list_images
from mission9.sources.listing import USUAL, Listing, ListingCounts
from mission9.sources.pack.layout import done_file
from mission9.storage.file_store import CheckLock, FileStore, file_store
from mission9.storage.local.errors import translate_errors
from mission9.storage.local.names import to_text
from mission9.storage.local.scratch import scratch_folder
from mission9.storage.location import real_root

logger = logging.getLogger(__name__)


def make_pack(
    input: str,  # noqa: A002 (the command's name for it)
    output: str,
    *,
    listing: Listing = USUAL,
    overwrite: bool = False,
    workers: int | None = None,
) -> PackReport:
    """Pack the images below `input` into a pack at `output`, or update the existing pack.

    Unchanged images are kept, unless `overwrite` is set, as is the finished work of a killed call. The current pack is
    complete at every moment: the new one replaces it through the manifest, which is written last.

    Raises:
        UsageError: the request is not valid.
        StorageError: a disk or a bucket fails.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers} is not valid: pass 1 or more")
    store = file_store(output)
    root = find_root(input)
    if real_root(input) == real_root(output):
        raise OutputError(f"the pack would be among the images in {input}: pass another --output")
    with translate_errors(output, input), locked(store) as check, scratch_folder() as scratch:
        found = ListingCounts()
        batches = list_images(root, found, replace(listing, exclude=real_root(output)))
        _write_listing(scratch / "listing.parquet", batches, input, found)
        report = PackReport(str(store), _shown_place(real_root(input)), found.listed, found.skipped)
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
    input: str,  # noqa: A002 (the command's name for it)
    output: str,
    *,
    listing: Listing = USUAL,
) -> PackReport:
    """Like `make_pack`, through Spark, for stores that only Java can read; everything is packed again.

    Raises:
        UsageError: the request is not valid.
        SetupError: Spark is not installed.
        TaskError: Spark's job fails.
        StorageError: a disk or a bucket fails.
    """
    from mission9.pack.spark_pack import write_by_spark  # other packs do not need it

    store = file_store(output)
    images, pack = real_root(input), real_root(output)
    if pack == images or pack.startswith(f"{images.rstrip('/')}/"):
        raise OutputError(f"Spark would read the pack among the images in {input}: pass another --output")
    with translate_errors(output), locked(store) as check, scratch_folder() as scratch:
        written = write_by_spark(input, store, scratch, listing)
        report = PackReport(str(store), _shown_place(input), skipped=written.skipped, read=written.plan.todo_images)
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
        raise InputError(f"there are no images in {place}{found.in_brackets()}: pass another --input")


def _write_parts(root: Root, store: FileStore, plan: PackPlan, workers: int | None) -> None:
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
    """Publish the finished parts; a part from an earlier call with damaged index rows must be made again.

    Raises:
        StorageError: a part that was just made is damaged.
    """
    try:
        show_pack(store, plan, report, check_lock)
    except Damaged as damage:
        if damage.name not in map(done_file, plan.kept):
            raise StorageError(f"{store}/{damage}: fix the disk, then pack again with --overwrite") from damage
        logger.warning("%s: %s, so that part is made again", store, damage)
        store.remove([damage.name])
        return False
    return True


def _shown_place(place: str) -> str:
    """A place in the form that a manifest may contain."""
    return to_text(os.fsencode(redact(place)))
