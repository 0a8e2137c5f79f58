"""Committed shards -> parts: files of a suitable size in the order of path, of exactly the listed images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mission9.output.shards import Shard, commit, committed_features, committed_rejects, rows_of
from mission9.output.tables import read_group
from mission9.schema import FEATURES_TABLE, REJECTS_TABLE


@dataclass(frozen=True)
class CompactParts:
    """Task that gathers the outcomes of `parts[number]` and commits them into `folder`."""

    images: Path
    parts: tuple[Shard, ...]
    folder: Path

    def __call__(self, number: int) -> bytes:
        part = self.parts[number]
        rows = read_group(self.images, part.number)
        features = self._gather(rows, committed_features, FEATURES_TABLE)
        commit(self.folder, part, features, self._gather(rows, committed_rejects, REJECTS_TABLE))
        return b""

    def _gather(self, rows: pa.Table, file: Callable[[Path, str], Path | None], schema: pa.Schema) -> pa.Table:
        batches = [
            batch
            for key in pc.unique(rows["shard"]).to_pylist()
            for batch in rows_of(file(self.folder, key), _paths(rows, key), schema)
        ]
        return _in_order(pa.Table.from_batches(batches, schema), rows["path"])


def _paths(rows: pa.Table, key: str) -> pa.Array:
    return rows.filter(pc.equal(rows["shard"], key))["path"].combine_chunks()


def _in_order(table: pa.Table, paths: pa.ChunkedArray) -> pa.Table:
    places = pc.index_in(paths, value_set=table["path"].combine_chunks()).drop_null().to_numpy()
    in_order = np.array_equal(places, np.arange(len(table)))
    return table if in_order else table.take(pa.array(places))
