"""A shard's number -> its features and rejects, committed; runs on the workers.

A shard is done when its marker is there, since the marker is written last and the tables' lengths in it are checked.
Two tries of one shard, even at once, write the same rows under names of their own, and the last rename wins.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mission9.files import private_name, write_whole
from mission9.schema import FEATURES_TABLE, REJECTS_TABLE
from mission9.stages.infer_features import Extraction, ImageRow, infer_features
from mission9.stages.plan_shards import Shard, read_shard


@dataclass(frozen=True)
class Table:
    """A committed file: rows, length in bytes and SHA-256; of no file where there are no rows."""

    rows: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Marker:
    """What a finished shard holds."""

    key: str
    features: Table
    rejects: Table


@dataclass(frozen=True, kw_only=True)
class ExtractShards:
    """Called with a number, extracts and commits that one of `shards` into `folder`; returns nothing."""

    root: str
    plan: Path
    shards: tuple[Shard, ...]
    extraction: Extraction
    folder: Path

    def __call__(self, number: int) -> bytes:
        shard = self.shards[number]
        rows = read_shard(self.plan, shard.number)
        outcomes = infer_features(_image_rows(rows, self.root), self.extraction)
        commit(self.folder, shard, pa.Table.from_batches(outcomes))
        return b""


def commit(folder: Path, shard: Shard, outcomes: pa.Table) -> None:
    """Write a shard's outcomes: features, rejects, then the marker.

    Raises:
        RuntimeError: rows are missing or too many.
    """
    if outcomes["path"].null_count or len(outcomes) != shard.images:
        raise RuntimeError(f"shard {shard.key} has {shard.images} images and {len(outcomes)} outcomes")
    good = outcomes["reason"].is_null()
    marker = Marker(
        shard.key,
        _write(features_file(folder, shard.key), outcomes.filter(good), FEATURES_TABLE),
        _write(rejects_file(folder, shard.key), outcomes.filter(outcomes["reason"].is_valid()), REJECTS_TABLE),
    )
    write_whole(_marker_file(folder, shard.key), json.dumps(asdict(marker)).encode())


def read_marker(folder: Path, key: str) -> Marker | None:
    """The marker of a shard, or None if the shard is not done."""
    try:
        facts = json.loads(_marker_file(folder, key).read_bytes())
        marker = Marker(facts["key"], Table(**facts["features"]), Table(**facts["rejects"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = _is_whole(features_file(folder, key), marker.features) and _is_whole(
        rejects_file(folder, key), marker.rejects
    )
    return marker if whole and marker.key == key else None


def features_file(folder: Path, key: str) -> Path:
    """Where a shard's features are."""
    return folder / f"{key}.features.parquet"


def rejects_file(folder: Path, key: str) -> Path:
    """Where a shard's rejects are."""
    return folder / f"{key}.rejects.parquet"


def _marker_file(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"


def _image_rows(rows: pa.Table, root: str) -> Iterator[ImageRow]:
    columns = (rows[name].to_pylist() for name in ("path", "split", "label", "bytes"))
    return (ImageRow(path, split, label, size, root) for path, split, label, size in zip(*columns, strict=True))


def _write(path: Path, rows: pa.Table, schema: pa.Schema) -> Table:
    if not len(rows):
        path.unlink(missing_ok=True)
        return Table()
    partial = private_name(path)
    # Features are too different from each other for a dictionary to pay.
    text = [field.name for field in schema if field.type == pa.string()]
    pq.write_table(rows.select(schema.names).cast(schema), partial, compression="zstd", use_dictionary=text)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = partial.stat().st_size
    partial.replace(path)
    return Table(len(rows), size, digest)


def _is_whole(path: Path, table: Table) -> bool:
    try:
        return not table.rows or path.stat().st_size == table.bytes
    except OSError:
        return False
