"""Committed shards: a features file, a rejects file and a marker under one key.

A shard is done when its marker exists: the marker is written last, and records the lengths of the tables.
Two tries of one shard, even concurrent ones, write the same rows under names of their own, and the last rename wins.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mission9.concurrency.watchdog import progress
from mission9.output.layout import done_file, plan_file, todo_file
from mission9.output.tables import TableWriter, read_table, row_groups
from mission9.schema import FEATURES_TABLE, REJECTS_TABLE
from mission9.storage.local.files import (
    atomic_path,
    file_sha256,
    files_in,
    is_transient,
    remove_file,
    retry_io,
    write_atomic,
)
from mission9.storage.local.untrusted import read_json

# Rows read at a time: 10 MB of features, so that a reader's overhead is negligible.
GROUP_ROWS = 2048

_TABLES = _FEATURES, _REJECTS = "features.parquet", "rejects.parquet"

# Valid file names, without any path.
_KEY = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Shard:
    """Some images of one split: rows of the `number`-th row group of a plan; `key` names its committed files."""

    number: int
    key: str
    split: str
    images: int
    first: int = 0

    def rows_in(self, group: pa.Table) -> pa.Table:
        """Its rows of the row group."""
        return group.slice(self.first, self.images)

    @staticmethod
    def pack(shards: Sequence[Shard]) -> pa.RecordBatch:
        """A row for each shard, to send to workers: they would load 400,000 objects for more than a second a task."""
        names = [field.name for field in fields(Shard)]
        return pa.record_batch([pa.array([getattr(shard, name) for shard in shards]) for name in names], names)

    @staticmethod
    def unpack(rows: pa.RecordBatch, number: int) -> Shard:
        """The shard in a row of `pack`."""
        return Shard(**rows.slice(number, 1).to_pylist()[0])


@dataclass(frozen=True)
class Table:
    """A committed file: rows, length in bytes and SHA-256; without rows there is no file."""

    rows: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Marker:
    """The facts of a finished shard."""

    key: str
    features: Table
    rejects: Table

    @property
    def images(self) -> int:
        return self.features.rows + self.rejects.rows


def commit(folder: Path, shard: Shard, features: pa.Table, rejects: pa.Table) -> Marker:
    """Write a shard's features, rejects, then the marker.

    Raises:
        RuntimeError: rows are missing or too many.
    """
    if len(features) + len(rejects) != shard.images or features["path"].null_count or rejects["path"].null_count:
        outcomes = f"{len(features)} features and {len(rejects)} rejects"
        raise RuntimeError(f"shard {shard.key} has {shard.images} images, but {outcomes}")
    marker = Marker(
        shard.key,
        _write(features_file(folder, shard.key), features, FEATURES_TABLE),
        _write(rejects_file(folder, shard.key), rejects, REJECTS_TABLE),
    )
    write_atomic(_marker_file(folder, shard.key), json.dumps(asdict(marker) | {"check": _check(marker)}).encode())
    return marker


def read_marker(folder: Path, key: str) -> Marker | None:
    """The marker of a shard, or None if the shard is not done."""
    if not _KEY.fullmatch(key):  # from an untrusted or damaged plan
        return None
    try:
        facts = read_json(_marker_file(folder, key))
        marker = Marker(facts["key"], Table(**facts["features"]), Table(**facts["rejects"]))
        if facts["check"] != _check(marker):
            return None
    except OSError as error:
        if is_transient(error):  # the shard itself may be fine
            raise
        return None
    except (ValueError, KeyError, TypeError):
        return None
    whole = _is_whole(features_file(folder, key), marker.features) and _is_whole(
        rejects_file(folder, key), marker.rejects
    )
    return marker if whole and marker.key == key else None


def damaged(folder: Path, key: str) -> list[Path]:
    """The files of a committed shard whose content differs from its marker."""
    marker = read_marker(folder, key)
    if marker is None:
        return []
    tables = {features_file(folder, key): marker.features, rejects_file(folder, key): marker.rejects}
    return [file for file, table in tables.items() if table.rows and file_sha256(file) != table.sha256]


def read_features(folder: Path, key: str) -> pa.Table:
    """The features of a committed shard."""
    file = committed_features(folder, key)
    return read_table(file).cast(FEATURES_TABLE) if file else FEATURES_TABLE.empty_table()


def read_rejects(folder: Path, key: str) -> pa.Table:
    """The rejects of a committed shard."""
    file = committed_rejects(folder, key)
    return read_table(file).cast(REJECTS_TABLE) if file else REJECTS_TABLE.empty_table()


def committed_features(folder: Path, key: str) -> Path | None:
    """The features file recorded in a shard's marker; any other was left by a failed try."""
    marker = read_marker(folder, key)
    return features_file(folder, key) if marker and marker.features.rows else None


def committed_rejects(folder: Path, key: str) -> Path | None:
    """The rejects file recorded in a shard's marker; any other was left by a failed try."""
    marker = read_marker(folder, key)
    return rejects_file(folder, key) if marker and marker.rejects.rows else None


def rows_of(file: Path | None, wanted: pa.Array, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a committed file with the paths in `wanted`, a row group at a time."""
    if file is None:
        return
    for group in row_groups(file):
        progress()
        for batch in group.cast(schema).to_batches():
            yield batch.filter(pc.is_in(batch["path"], value_set=wanted))


def sweep(folder: Path, names: Collection[str]) -> None:
    """Delete the files not in `names`: those of killed tries, and of compacted shards.

    Markers are deleted first, so that none ever refers to a missing file.
    """
    for file in sorted(files_in(folder), key=lambda file: file.suffix != ".json"):
        if file.name.split(".")[0] not in names:
            remove_file(file)


def sweep_tries(folder: Path) -> None:
    """Delete the remains of killed tries: partial files, and tables without a marker."""
    names = {file.name for file in files_in(folder)}
    for name in sorted(names):
        key, _, kind = name.partition(".")
        if not key or (kind in _TABLES and f"{key}.json" not in names):
            remove_file(folder / name)


def features_file(folder: Path, key: str) -> Path:
    """The path of a shard's features."""
    return folder / f"{key}.{_FEATURES}"


def rejects_file(folder: Path, key: str) -> Path:
    """The path of a shard's rejects."""
    return folder / f"{key}.{_REJECTS}"


def _marker_file(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"


def _check(marker: Marker) -> str:
    """A checksum of the marker's numbers."""
    return hashlib.sha256(json.dumps(asdict(marker), sort_keys=True).encode()).hexdigest()


def write_table(file: Path, rows: pa.Table, schema: pa.Schema) -> None:
    """Write a Parquet file of features or rejects, in row groups of `GROUP_ROWS`."""
    # Features hardly repeat, so a dictionary does not pay.
    text = [field.name for field in schema if field.type == pa.string()]
    with TableWriter(file, schema, compression="zstd", use_dictionary=text) as writer:
        writer.write_table(rows, row_group_size=GROUP_ROWS)


def _write(path: Path, rows: pa.Table, schema: pa.Schema) -> Table:
    if not len(rows):
        remove_file(path)
        return Table()
    table = rows.select(schema.names).cast(schema)

    def write() -> Table:
        with atomic_path(path) as whole:
            write_table(whole, table, schema)
            with whole.open("rb") as file:
                os.fsync(file.fileno())
            return Table(len(rows), whole.stat().st_size, file_sha256(whole))

    return retry_io(write)  # from the beginning: data written before a failed fsync may be lost


def _is_whole(path: Path, table: Table) -> bool:
    try:
        return not table.rows or path.stat().st_size == table.bytes
    except OSError:
        return False


def clear_away(folder: Path) -> None:
    """Delete shards outside the current result: those compacted, or of another listing."""
    plans = (plan_file(folder), todo_file(folder), done_file(folder))
    parts = {group["part"][0].as_py() for group in row_groups(done_file(folder), ["part"])}
    sweep(folder, parts | {file.stem for file in plans})
