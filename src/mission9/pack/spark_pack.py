"""Images in a store that only Java can read -> a pack, by Spark's `binaryFile`: read, sorted and written by its tasks.

Everything is packed anew each time. Spark's file source passes over names that begin with _ or a dot, and a colon in a
name ends its job; who needs those reads by Python.
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

# Rows of an Arrow batch, which Spark bounds by their number: images are larger than other rows.
_BATCH_SETTING, _BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch", "64"

_MAX_FOLDERS = 100_000  # that are looked at for splits

_AUTHORITY = re.compile(r"[a-zA-Z][\w+.-]*:(?://[^/]*)?")
_SUMMARY = "number int, key string, images long"


class Written(NamedTuple):
    """The plan of what Spark has written, and what was passed over."""

    plan: PackPlan
    skipped: Counter[str]


class _Top(NamedTuple):
    """The folder of images, as Spark's paths begin; its name; and its folders of splits."""

    prefix: str
    name: str
    layout: Layout


def write_by_spark(place: str, store: FileStore, folder: Path, listing: Listing) -> Written:
    """Parts of all that Spark sees below a place, written by its tasks; the plan of them is written into `folder`.

    Raises:
        InputError: Spark sees nothing there, or an image is larger than any may be.
        SetupError: there is no Spark.
        TaskError: Spark's job fails.
    """
    spark, is_ours = find_or_start_session(RunConfig())
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    logger.info("pack: Spark passes over names that begin with _ or a dot")
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
        raise InputError(f"Spark sees no files below {place}; give another --input")
    top = _top(files, place, listing)
    images, skipped = (files, Counter()) if listing.all_files else _images_among(files, top)
    facts = images.selectExpr("count(*) AS files", "sum(length) AS bytes", "max(length) AS largest").collect()[0]
    if not facts.files:
        raise InputError(f"there are no images in {place} ({skipped.total()} other files); give another --input")
    if facts.largest > MAX_BYTES:
        raise InputError(f"an image below {place} has {facts.largest:,} bytes, and one may have {MAX_BYTES:,}: move it")
    parts = max(-(-facts.bytes // PART_BYTES), -(-facts.files // PART_IMAGES), 1)
    # Spark reads what is larger than it can hold before it asks for the name, but not before it asks for the length.
    rows = images.where(f"length <= {MAX_BYTES}").repartitionByRange(int(parts), "path").sortWithinPartitions("path")

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        key = uuid.uuid4().hex  # a task tried twice writes two, and only one is told of
        count = write_part(store, key, (image for batch in batches for image in _images(batch, top)))
        summary = [[partition_number()], [key], [count]]
        yield pa.record_batch([pa.array(summary[0], pa.int32()), *summary[1:]], ["number", "key", "images"])

    told = sorted(rows.mapInArrow(write, _SUMMARY).collect())
    done = [Part(row.number, row.key, row.images) for row in told if row.images]
    if sum(part.images for part in done) != facts.files:
        raise ConservationError(f"Spark sees {facts.files} images, and {sum(part.images for part in done)} came")
    return Written(_plan(store, folder, done), skipped)


def _images_among(files: DataFrame, top: _Top) -> tuple[DataFrame, Counter[str]]:
    """The files that are images by their names, and the others by extension, as `skipped_as` has it: none is read."""
    from pyspark.sql import functions

    name = functions.substring_index("path", "/", -1)
    has_dot = functions.instr(name, ".") > 0
    behind_dot = functions.lower(functions.substring_index(name, ".", -1))
    extension = functions.when(has_dot, functions.concat(functions.lit("."), behind_dot))
    above = "".join([top.prefix, *(f"{folder}/" for folder in top.layout.above)])
    is_beside = functions.lit(bool(top.layout.splits)) & (
        functions.col("path") == functions.concat(functions.lit(above), name)
    )
    is_named_so = functions.when(has_dot, extension.isin(*IMAGE_EXTENSIONS)).otherwise(~is_beside)
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
    """Tell how the paths begin that Spark gives: with the address of the store, where a place may leave it away."""
    from pyspark.sql import functions

    path = files.select("path").first()[0]  # type: ignore[index]
    inner = (urlsplit(place).path if "://" in place else place).rstrip("/")
    authority = _AUTHORITY.match(path)
    prefix = f"{authority[0] if authority else ''}{inner}/"
    if not path.startswith(prefix):
        raise InputError(f"Spark calls a file below {place} {path}: give the folder as Spark has it")
    below = functions.substring("path", len(prefix) + 1, 4096)
    folder = functions.regexp_replace(below, "/?[^/]*$", "").alias("folder")
    folders = [row.folder for row in files.select(folder).distinct().limit(_MAX_FOLDERS).collect()]
    return _Top(prefix, inner.rpartition("/")[2], _layout(place, folders, listing))


def _layout(place: str, folders: list[str], listing: Listing) -> Layout:
    """The folders of splits, of the folders in which files lie."""
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
    """The plan of the parts, which hold all images in order of path; it goes into the pack as well."""
    plan = PackPlan(folder / "plan.parquet", folder / "todo.parquet", parts, todo_images=sum(p.images for p in parts))
    with TableWriter(plan.images, PACK_PLAN) as writer:
        for part in parts:
            with store.open(done_file(part.key)) as file, pq.ParquetFile(file) as rows:
                for number in range(rows.num_row_groups):
                    writer.write_table(rows.read_row_group(number, columns=PACK_PLAN.names).cast(PACK_PLAN))
    with store.writing(PLAN_FILE) as noted:
        shutil.copyfile(plan.images, noted)
    return plan
