"""Rows of a listing -> a plan: shards of a few seconds of work, one row group each in one Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mission9.files import private_name
from mission9.schema import LISTING

# About two seconds of one core at a hundred images a second; large files make a shard shorter. What a shard
# holds depends on the listing alone, so results do not depend on how many workers share the shards.
SHARD_IMAGES = 256
SHARD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Shard:
    """A run of consecutive images of one split; `key` names its content: every column of its rows."""

    number: int
    key: str
    split: str
    images: int


def plan_shards(listing: Iterable[pa.RecordBatch], plan: Path) -> list[Shard]:
    """Cut a listing into shards and write them to `plan`, the n-th shard as the n-th row group."""
    partial = private_name(plan)
    shards = []
    with pq.ParquetWriter(partial, LISTING) as writer:
        for number, rows in enumerate(_cut(listing)):
            writer.write_batch(rows, row_group_size=len(rows))
            shards.append(Shard(number, _key(rows), rows["split"][0].as_py(), len(rows)))
    partial.replace(plan)
    return shards


def read_shard(plan: Path, number: int) -> pa.Table:
    """The rows of one shard of a plan."""
    with pq.ParquetFile(plan) as file:
        return file.read_row_group(number)


def _cut(listing: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    waiting: pa.RecordBatch | None = None
    for batch in listing:
        rows = batch if waiting is None else pa.concat_batches([waiting, batch])
        ends = _ends(rows)
        for start, end in zip([0, *ends], ends, strict=False):
            yield rows.slice(start, end - start)
        waiting = rows.slice(ends[-1] if ends else 0)
    if waiting is not None and len(waiting):
        yield waiting


def _ends(rows: pa.RecordBatch) -> list[int]:
    """Where shards end among rows that begin one; the last shard, which may go on, has no end yet."""
    ends, images, size = [], 0, 0
    sizes, splits = rows["bytes"].to_pylist(), rows["split"].to_pylist()
    for at, (row_size, split) in enumerate(zip(sizes, splits, strict=True)):
        full = images == SHARD_IMAGES or size + row_size > SHARD_BYTES or split != splits[at - 1]
        if images and full:
            ends.append(at)
            images, size = 0, 0
        images, size = images + 1, size + row_size
    return ends


def _key(rows: pa.RecordBatch) -> str:
    digest = hashlib.sha256()
    for name in LISTING.names:
        digest.update("\0".join(map(str, rows[name].to_pylist())).encode() + b"\1")
    return digest.hexdigest()[:24]
