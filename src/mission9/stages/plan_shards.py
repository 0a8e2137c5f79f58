"""Rows of a listing -> a plan: the parts of the finished table, and shards of a few seconds for the new images.

A plan consists of two Parquet files. `images.parquet` has a row for each listed image, with the shard that holds its
outcome. Each of its row groups is a part: the images of one file of the finished table. `todo.parquet` has the images
that no earlier run has committed: those of a part are a row group, of which each shard is a slice. A row group for each
shard would make a footer of hundreds of megabytes, which every worker reads, and an encrypted file cannot have 32,768.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mission9.output.layout import plan_file, todo_file
from mission9.output.shards import Shard
from mission9.output.tables import TableWriter
from mission9.schema import LISTING, PLAN
from mission9.stages.reuse import ReusableShards
from mission9.storage.local.files import atomic_path

# The limit of a shard's files in bytes: large files make a shard shorter.
SHARD_BYTES = 64 * 1024 * 1024

# A part's features are 40 to 80 MB, a size that suits readers. A part ends with a label, so that new images of one
# label leave most parts unchanged.
PART_IMAGES = 8192
MAX_PART_IMAGES = 2 * PART_IMAGES

Ends = Callable[[pa.RecordBatch], list[int]]


@dataclass(frozen=True)
class Plan:
    """The files of a plan, its parts, and its shards to compute."""

    images: Path
    todo: Path
    parts: tuple[Shard, ...]
    shards: tuple[Shard, ...]

    @property
    def images_to_do(self) -> int:
        return sum(shard.images for shard in self.shards)


def plan_shards(listing: Iterable[pa.RecordBatch], known: ReusableShards, folder: Path, shard_images: int) -> Plan:
    """Divide a listing into parts, and the new images of each part into shards; write both files into `folder`."""
    parts: list[Shard] = []
    shards: list[Shard] = []
    groups = 0
    with (
        atomic_path(plan_file(folder)) as images,
        atomic_path(todo_file(folder)) as todo,
        TableWriter(images, PLAN) as part_writer,
        TableWriter(todo, LISTING) as shard_writer,
    ):
        for rows in _cut(listing, _ends_of_parts):
            keys = known.shards_of(rows)
            if keys.null_count:
                new_rows = rows.filter(keys.is_null())
                fresh = _cut_shards(new_rows, shard_images, group=groups)
                shard_writer.write_batch(new_rows, row_group_size=len(new_rows))
                shards += fresh
                groups += 1
                new_keys = pa.concat_arrays([pa.repeat(shard.key, shard.images) for shard in fresh])
                keys = pc.replace_with_mask(keys, keys.is_null(), new_keys)
            part = Shard(len(parts), _part_key(keys, known, shards), rows["split"][0].as_py(), len(rows))
            columns = [*rows.columns, keys, pa.repeat(part.key, len(rows))]
            part_writer.write_batch(pa.record_batch(columns, schema=PLAN), row_group_size=len(rows))
            parts.append(part)
    return Plan(plan_file(folder), todo_file(folder), tuple(parts), tuple(shards))


def _cut_shards(rows: pa.RecordBatch, most: int, *, group: int) -> list[Shard]:
    even = -(-len(rows) // -(-len(rows) // most))  # equal shards, so that cores end together
    split = rows["split"][0].as_py()
    bounds = [0, *_ends_of_shards(rows, even), len(rows)]
    return [Shard(group, uuid.uuid4().hex, split, end - start, start) for start, end in pairwise(bounds)]


def _part_key(keys: pa.Array, known: ReusableShards, shards: list[Shard]) -> str:
    """The key of the one shard that holds exactly a part, which then needs no compaction; otherwise a new key."""
    first = str(keys[0])
    if len(pc.unique(keys)) == 1:
        is_new = bool(shards) and shards[-1].key == first and shards[-1].images == len(keys)
        if is_new or known.holds_just(first, len(keys)):
            return first
    return uuid.uuid4().hex


def _cut(batches: Iterable[pa.RecordBatch], ends: Ends) -> Iterator[pa.RecordBatch]:
    """The same rows, cut at the indices that `ends` returns; the rows passed to it begin with a new piece."""
    waiting: pa.RecordBatch | None = None
    for batch in batches:
        rows = batch if waiting is None else pa.concat_batches([waiting, batch])
        bounds = [0, *ends(rows)]
        for start, end in pairwise(bounds):
            yield rows.slice(start, end - start)
        waiting = rows.slice(bounds[-1])
    if waiting is not None and len(waiting):
        yield waiting


def _ends_of_parts(rows: pa.RecordBatch) -> list[int]:
    """The indices at which parts end; the last part has none yet, because more rows may follow."""
    ends, start = [], 0
    splits, labels = rows["split"].to_pylist(), rows["label"].to_pylist()
    for at in range(1, len(rows)):
        images = at - start
        label_ends = images >= PART_IMAGES and labels[at] != labels[at - 1]
        if label_ends or images == MAX_PART_IMAGES or splits[at] != splits[at - 1]:
            ends.append(at)
            start = at
    return ends


def _ends_of_shards(rows: pa.RecordBatch, most: int) -> list[int]:
    """The indices at which shards end, in rows of one split."""
    ends, start, size = [], 0, 0
    for at, row_size in enumerate(rows["bytes"].to_pylist()):
        if at > start and (at - start == most or size + row_size > SHARD_BYTES):
            ends.append(at)
            start, size = at, 0
        size += row_size
    return ends
