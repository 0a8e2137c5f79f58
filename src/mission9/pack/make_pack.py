"""Images -> a pack of them: listed, planned, written by worker processes, then shown by the manifest."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import mission9
from mission9.errors import ConservationError, InputError, OutputError, StorageError
from mission9.names import from_text
from mission9.pack.layout import (
    DONE,
    FIRST_PATHS,
    IMAGES,
    INDEX,
    INDEX_TABLE,
    MANIFEST,
    MOST_MANIFEST_BYTES,
    PACK_REJECTS,
    PLAN_FILE,
    REJECTS,
    Manifest,
    done_file,
    part_file,
)
from mission9.pack.plan_pack import PackPlan, plan_pack
from mission9.pack.store import CheckLock, Store, store_of
from mission9.pack.write_part import WriteParts
from mission9.places import real_root
from mission9.redact import redact
from mission9.runners import InProcessRunner, Runner
from mission9.schema import LISTING
from mission9.sources import settled
from mission9.stages.list_images import Found, check_folder, list_images
from mission9.stages.read_bytes import MAX_BYTES
from mission9.storage import storage_told
from mission9.tables import TableWriter, row_groups
from mission9.urls import is_url, without_file

logger = logging.getLogger(__name__)

_INDEX_ROWS = 2000  # that are read at a time to find an image


@dataclass
class PackReport:
    """What a pack holds, and what was done for it."""

    place: str
    listed: int = 0
    packed: int = 0
    rejected: int = 0
    read: int = 0
    gone: int = 0
    parts: int = 0
    bytes: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


def make_pack(
    input: str,  # noqa: A002 (as the command has it)
    output: str,
    *,
    all_files: bool = False,
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
    store = _store(output)
    check_folder(input)
    root = settled(input)
    if real_root(input) == real_root(output):
        raise OutputError(f"the pack would lie among the images in {input}: give another --output")
    with storage_told(output, input), store.lock() as check, tempfile.TemporaryDirectory(prefix="mission9-") as scratch:
        found, folder = Found(), Path(scratch)
        batches = list_images(root, found, all_files=all_files, leave_out=real_root(output))
        _write_listing(folder / "listing.parquet", batches, input, found)
        last = _manifest(store)
        plan = _plan(store, folder, last, overwrite=overwrite)
        logger.info("pack: %s images, %s to read", f"{found.listed.total():,}", f"{plan.todo_images:,}")
        report = PackReport(str(store), found.listed.total(), read=plan.todo_images, gone=plan.gone)
        report.splits, report.skipped = found.listed, found.skipped
        _write_parts(root, store, plan, workers)
        _show(store, plan, report, redact(real_root(input)), check)
    return report


def make_pack_by_spark(
    input: str,  # noqa: A002 (as the command has it)
    output: str,
    *,
    all_files: bool = False,
) -> PackReport:
    """As `make_pack`, of what only Java can read: by Spark, everything anew.

    Raises:
        UsageError: the request cannot be carried out.
        SetupError: there is no Spark.
        TaskError: Spark's job fails.
        StorageError: a disk or a bucket fails.
    """
    from mission9.pack.spark_pack import write_by_spark  # loads what other packs do not need

    store = _store(output)
    with storage_told(output), store.lock() as check, tempfile.TemporaryDirectory(prefix="mission9-") as scratch:
        written = write_by_spark(input, store, Path(scratch), all_files=all_files)
        report = PackReport(str(store), written.plan.todo_images, read=written.plan.todo_images)
        report.skipped = written.skipped
        for group in row_groups(written.plan.images, columns=["split"]):
            report.splits.update(group["split"].to_pylist())
        if not report.listed:
            raise InputError(
                f"there are no images in {input} ({report.skipped.total()} other files); give another --input"
            )
        _show(store, written.plan, report, redact(input), check)
    return report


def _store(output: str) -> Store:
    if is_url(without_file(output)):
        raise OutputError(f"packs are written to folders and s3:// addresses, not to {output}: give one")
    return store_of(without_file(output))


def _write_listing(file: Path, batches: Iterator[pa.RecordBatch], place: str, found: Found) -> None:
    with TableWriter(file, LISTING) as writer:
        for batch in batches:
            writer.write_batch(batch)
    if not found.listed:
        raise InputError(f"there are no images in {place} ({found.total} other files); give another --input")


def _manifest(store: Store) -> Manifest | None:
    """What stands; None where there is nothing, or nothing that can be read, which is packed anew."""
    content = store.get(MANIFEST, MOST_MANIFEST_BYTES)
    try:
        return Manifest.of(content, str(store)) if content is not None else None
    except InputError as error:
        logger.warning("%s", error)
        return None


def _plan(store: Store, folder: Path, last: Manifest | None, *, overwrite: bool) -> PackPlan:
    """What is to do, noted where the next call finds it if this one is killed."""
    earlier = None if overwrite else _fetched(store, PLAN_FILE, folder / "earlier.parquet")
    done = _done(store, last) if earlier is not None else set()
    again: set[str] = set()
    if last is not None and earlier is not None:
        rejects = _fetched(store, last.rejects, folder / "rejects.parquet")
        again = set(pq.read_table(rejects, columns=["path"])["path"].to_pylist()) if rejects is not None else set()
    listing = folder / "listing.parquet"
    try:
        plan = plan_pack(listing, earlier, folder, done=done, again=again)
    except (pa.ArrowException, ValueError) as error:
        logger.warning("%s/%s is damaged, and everything is packed again: %s", store, PLAN_FILE, error)
        plan = plan_pack(listing, None, folder, done=(), again=())
    with store.writing(PLAN_FILE) as file:
        shutil.copyfile(plan.images, file)
    return plan


def _done(store: Store, last: Manifest | None) -> set[str]:
    """The keys of parts that are done, and as long as they were when they were."""
    lengths = {name.removesuffix(".parquet"): length for name, length in store.lengths(IMAGES).items()}
    noted = {name.removesuffix(".parquet") for name in store.lengths(DONE)}
    sizes = last.parts if last is not None else {}
    return {key for key in noted if key in lengths and sizes.get(key, lengths[key]) == lengths[key]}


def _fetched(store: Store, name: str, file: Path) -> Path | None:
    """A file of the pack on this machine, if there is one."""
    folder, _, last = name.rpartition("/")
    if last not in store.lengths(folder):
        return None
    with store.open(name) as source, file.open("wb") as target:
        while piece := source.read(1 << 24):
            target.write(piece)
    return file


def _write_parts(root: str, store: Store, plan: PackPlan, workers: int | None) -> None:
    task = WriteParts(root=root, todo=plan.todo, parts=tuple(plan.parts), store=store, max_bytes=MAX_BYTES)
    runner: Runner = InProcessRunner()
    if len(plan.parts) < 2:
        runner.map(task, len(plan.parts))
        return
    from mission9.runners import workers_here
    from mission9.runners.local import LocalRunner

    with LocalRunner(min(workers or workers_here("cpu"), len(plan.parts))) as processes:
        processes.map(task, len(plan.parts))


def _show(store: Store, plan: PackPlan, report: PackReport, source: str, check_lock: CheckLock) -> None:
    """Write the index and what could not be read, then the manifest; and clear away what is in neither."""
    name = uuid.uuid4().hex
    index, rejects = f"{INDEX}/{name}.index.parquet", f"{REJECTS}/{name}.parquet"
    keys = plan.kept | {part.key for part in plan.parts}
    with store.writing(index) as file, store.writing(rejects) as told:
        _write_index(store, plan, file, told, report)
    if report.packed + report.rejected != report.listed:
        raise ConservationError(f"{report.listed} listed, {report.packed} packed, {report.rejected} rejected")
    lengths = store.lengths(IMAGES)
    manifest = Manifest(
        index=index,
        rejects=rejects,
        images=report.packed,
        rejected=report.rejected,
        total_bytes=report.bytes,
        splits=dict(sorted(report.splits.items())),
        skipped=dict(sorted(report.skipped.items())),
        parts={key: lengths[f"{key}.parquet"] for key in sorted(keys)},
        source=source,
        made_by=f"mission9 {mission9.__version__}",
    )
    check_lock()  # in a bucket, another may have taken the place of one that was not heard of for long
    store.put(MANIFEST, manifest.to_json())
    report.parts = len(keys)
    wanted = {index, rejects, *(part_file(key) for key in keys), *(done_file(key) for key in keys)}
    there = [f"{place}/{file}" for place in (INDEX, REJECTS, IMAGES, DONE) for file in store.lengths(place)]
    check_lock()
    store.remove([file for file in there if file not in wanted])


def _write_index(store: Store, plan: PackPlan, file: Path, told: Path, report: PackReport) -> None:
    """The rows of all parts in order of path, those that were rejected also by themselves."""
    parts = _Parts(store)
    first: list[str] = []
    options = {"compression": "zstd", "use_dictionary": ["split", "label", "part", "reason"]}
    with TableWriter(file, INDEX_TABLE, **options) as index, TableWriter(told, PACK_REJECTS) as rejects:
        for rows in _groups(plan.images):
            found = pa.Table.from_pylist(
                [parts.row(path, part) for path, part in zip(*rows, strict=True)], schema=INDEX_TABLE
            )
            first.append(rows[0][0])
            index.write_table(found, row_group_size=len(found))
            bad = found.filter(found["reason"].is_valid())
            columns = [bad[name] if name != "stage" else pa.array(["read"] * len(bad)) for name in PACK_REJECTS.names]
            rejects.write_table(pa.table(columns, schema=PACK_REJECTS))
            report.reasons.update(bad["reason"].to_pylist())
            report.rejected += len(bad)
            report.packed += len(found) - len(bad)
            report.bytes += sum(found["length"].to_pylist())
        index.add_key_value_metadata({FIRST_PATHS: json.dumps(first).encode()})


def _groups(plan: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Paths and parts of a plan, so many at a time."""
    for group in row_groups(plan, columns=["path", "part"]):
        for start in range(0, len(group), _INDEX_ROWS):
            rows = group.slice(start, _INDEX_ROWS)
            yield rows["path"].to_pylist(), rows["part"].to_pylist()


class _Parts:
    """The rows that parts have noted when they were done; each is read once, in order of path."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[str, Iterator[dict[str, object]]] = {}

    def row(self, path: str, part: str) -> dict[str, object]:
        """What a part tells of an image.

        Raises:
            StorageError: it does not, any more.
        """
        rows = self._rows.setdefault(part, self._of(part))
        # What an earlier call could not read is not this part's any more.
        for row in rows:
            if row["path"] == path:
                return row
            if from_text(str(row["path"])) > from_text(path):
                break
        raise StorageError(f"{self._store}/{done_file(part)} is damaged: pack again with --overwrite")

    def _of(self, part: str) -> Iterator[dict[str, object]]:
        with self._store.open(done_file(part)) as file, pq.ParquetFile(file, page_checksum_verification=True) as table:
            for number in range(table.num_row_groups):
                yield from table.read_row_group(number).to_pylist()
