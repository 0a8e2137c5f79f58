"""Images in a store that only Java can read -> a pack, through Spark's `binaryFile`: read, sorted and written by tasks.

Everything is packed again each time. Spark's file source skips names that begin with _ or a dot, and fails on a colon
in a name; use Python to read those.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from mission9.concurrency.watchdog import progress
from mission9.config import RunConfig
from mission9.errors import ConservationError, InputError, TaskError
from mission9.options import MAX_BYTES
from mission9.output.tables import TableWriter
from mission9.pack.plan_pack import PART_BYTES, PART_IMAGES, PackPlan, Part, Row
from mission9.pack.write_part import Read, write_part
from mission9.runners.spark import partition_number
from mission9.runners.spark_session import find_or_start_session, stop_session
from mission9.schema import listed_time
from mission9.sources.layout import Layout, Strays, is_of_tools, tools_folder
from mission9.sources.listing import Listing
from mission9.sources.pack.layout import PACK_PLAN, PLAN_FILE, done_file
from mission9.storage.file_store import FileStore
from mission9.storage.local.names import IMAGE_EXTENSIONS, to_text

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

# Rows of an Arrow batch, which Spark bounds by number: images are larger than other rows.
_BATCH_SETTING, _BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch", "64"

_MAX_FOLDERS = 100_000  # searched for splits

_AUTHORITY = re.compile(r"[a-zA-Z][\w+.-]*:(?://[^/]*)?")
_SUMMARY = "number int, key string, images long"


class Written(NamedTuple):
    """The plan of the parts that Spark has written, and the skipped files."""

    plan: PackPlan
    skipped: Counter[str]


class _Top(NamedTuple):
    """The folder of images, in the form of Spark's paths; its name; and its folders of splits."""

    prefix: str
    name: str
    layout: Layout


def write_by_spark(place: str, store: FileStore, folder: Path, listing: Listing) -> Written:
    """Write parts of all files that Spark lists below a place, by its tasks; their plan is written into `folder`.

    Raises:
        InputError: Spark lists no files there, or an image exceeds the limit.
        SetupError: Spark is not installed.
        TaskError: Spark's job fails.
    """
    spark, is_ours = find_or_start_session(RunConfig())
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    logger.info("pack: Spark skips names that begin with _ or a dot")
    before = spark.conf.get(_BATCH_SETTING, None)
    try:
        spark.conf.set(_BATCH_SETTING, _BATCH_ROWS)
        return _written(spark, place, store, folder, listing)
    except (PySparkException, Py4JError) as error:
        text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        kind = InputError if "PATH_NOT_FOUND" in text or "UnknownHost" in str(error) else TaskError
        raise kind(f"Spark cannot read {place}: {text[:300]}") from error
    finally:
        if is_ours:
            stop_session(spark)
        elif before is None:
            spark.conf.unset(_BATCH_SETTING)
        else:
            spark.conf.set(_BATCH_SETTING, before)


def _written(spark: SparkSession, place: str, store: FileStore, folder: Path, listing: Listing) -> Written:
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(place)
    if files.select("path").first() is None:
        raise InputError(f"Spark finds no files below {place}: pass another --input")
    top = _top(files, place, listing)
    images, skipped = (files, Counter()) if listing.all_files else _images_among(files, top)
    facts = images.selectExpr("count(*) AS files", "sum(length) AS bytes", "max(length) AS largest").collect()[0]
    if not facts.files:
        raise InputError(f"there are no images in {place} ({skipped.total()} other files): pass another --input")
    if facts.largest > MAX_BYTES:
        raise InputError(f"an image below {place} has {facts.largest:,} bytes, over the limit {MAX_BYTES:,}: move it")
    parts = max(-(-facts.bytes // PART_BYTES), -(-facts.files // PART_IMAGES), 1)
    # Spark reads oversized files before it applies a filter on the name, but not before one on the length.
    rows = images.where(f"length <= {MAX_BYTES}").repartitionByRange(int(parts), "path").sortWithinPartitions("path")

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        key = uuid.uuid4().hex  # a retried task writes two, and reports only one
        count = write_part(store, key, (image for batch in batches for image in _images(batch, top)))
        summary = [[partition_number()], [key], [count]]
        yield pa.record_batch([pa.array(summary[0], pa.int32()), *summary[1:]], ["number", "key", "images"])

    told = sorted(rows.mapInArrow(write, _SUMMARY).collect())
    done = [Part(row.number, row.key, row.images) for row in told if row.images]
    if sum(part.images for part in done) != facts.files:
        raise ConservationError(f"Spark lists {facts.files} images, but packed {sum(part.images for part in done)}")
    return Written(_plan(store, folder, done), skipped)


def _images_among(files: DataFrame, top: _Top) -> tuple[DataFrame, Counter[str]]:
    """The files that are images by their names, and counts of the others by extension, as in `skipped_as`."""
    from pyspark.sql import functions

    name = functions.substring_index("path", "/", -1)
    has_dot = functions.instr(name, ".") > 0
    behind_dot = functions.lower(functions.substring_index(name, ".", -1))
    extension = functions.when(has_dot, functions.concat(functions.lit("."), behind_dot))
    above = "".join([top.prefix, *(f"{folder}/" for folder in top.layout.above)])
    is_next_to_splits = functions.lit(bool(top.layout.splits)) & (
        functions.col("path") == functions.concat(functions.lit(above), name)
    )
    is_named_so = functions.when(has_dot, extension.isin(*IMAGE_EXTENSIONS)).otherwise(~is_next_to_splits)
    tools = functions.udf(lambda path: _tools(path, top.prefix), "string")("path")
    is_image = is_named_so & tools.isNull()
    as_what = functions.coalesce(tools, extension, functions.lit("(none)"))
    others = files.where(~is_image).select(as_what.alias("extension"))
    counts = others.groupBy("extension").count().collect()
    return files.where(is_image), Counter({row["extension"]: row["count"] for row in counts})


def _images(batch: pa.RecordBatch, top: _Top) -> Iterator[Read]:
    columns = [
        batch["path"].to_pylist(),
        [listed_time(microseconds * 1000) for microseconds in batch["modificationTime"].cast(pa.int64()).to_pylist()],
    ]
    for path, modified, content in zip(*columns, batch["content"].to_pylist(), strict=True):
        progress()
        parts = path.removeprefix(top.prefix).split("/")
        split = top.layout.split_of(parts[:-1])
        label = top.layout.label_of(parts[:-1], top.name)
        row = Row(to_text("/".join(parts).encode()), split, to_text(label.encode()), len(content), modified)
        yield Read(row, content, hashlib.sha256(content).hexdigest())


def _tools(path: str, prefix: str) -> str | None:
    return tools_folder(path.removeprefix(prefix).split("/")[:-1])


def _top(files: DataFrame, place: str, listing: Listing) -> _Top:
    """Find the beginning of Spark's paths, which includes the store's address even if the place omits it."""
    from pyspark.sql import functions

    path = files.select("path").first()[0]  # type: ignore[index]
    inner = (urlsplit(place).path if "://" in place else place).rstrip("/")
    authority = _AUTHORITY.match(path)
    prefix = f"{authority[0] if authority else ''}{inner}/"
    if not path.startswith(prefix):
        raise InputError(f"Spark names a file below {place} {path}: pass the folder in Spark's form")
    below = functions.substring("path", len(prefix) + 1, 4096)
    folder = functions.regexp_replace(below, "/?[^/]*$", "").alias("folder")
    folders = [row.folder for row in files.select(folder).distinct().limit(_MAX_FOLDERS).collect()]
    return _Top(prefix, inner.rpartition("/")[2], _layout(place, folders, listing))


def _layout(place: str, folders: list[str], listing: Listing) -> Layout:
    """The folders of splits, among the folders that contain files."""
    ways = [folder.split("/") for folder in folders if folder]

    def look(above: Sequence[str]) -> tuple[list[str], bool]:
        depth = len(above)
        inside = [way for way in ways if way[:depth] == list(above)]
        return sorted({way[depth] for way in inside if len(way) > depth}), "/".join(above) in folders

    layout = listing.layout(place, look)
    if listing.splits_from == "auto" and not layout.splits:
        strays = Strays()
        for way in ways:
            if not any(map(is_of_tools, way)):
                strays.note("/".join(way))
        strays.check(place)
    return layout


def _plan(store: FileStore, folder: Path, parts: list[Part]) -> PackPlan:
    """The plan of the parts, with all images sorted by path; it is stored in the pack too."""
    plan = PackPlan(folder / "plan.parquet", folder / "todo.parquet", parts, todo_images=sum(p.images for p in parts))
    with TableWriter(plan.images, PACK_PLAN) as writer:
        for part in parts:
            with store.open(done_file(part.key)) as file, pq.ParquetFile(file) as rows:
                for number in range(rows.num_row_groups):
                    writer.write_table(rows.read_row_group(number, columns=PACK_PLAN.names).cast(PACK_PLAN))
    with store.writing(PLAN_FILE) as noted:
        shutil.copyfile(plan.images, noted)
    return plan
