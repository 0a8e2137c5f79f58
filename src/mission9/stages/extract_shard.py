"""Extract and commit the features and rejects of a shard, on a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from mission9.models.extraction import Extraction
from mission9.output.shards import Shard, commit, read_marker
from mission9.output.tables import read_group
from mission9.sources.base import Root
from mission9.stages.infer_features import get_ready, infer_features
from mission9.stages.prepare_images import ImageRow

if TYPE_CHECKING:
    from mission9.output.bucket.shards import SharedShards


@dataclass(frozen=True)
class GetReady:
    """Task that prepares a process, with any number: creates its engine and its decoder process."""

    extraction: Extraction

    def __call__(self, number: int) -> bytes:  # noqa: ARG002 - as tasks are called
        get_ready(self.extraction)
        return b""


@dataclass(frozen=True, kw_only=True)
class ExtractShards:
    """Task that extracts the `number`-th of `shards` and commits it into `folder`; returns CPU seconds, as JSON.

    `shards` are packed. With `shared`, it reads the plan from a bucket and commits shards there, visible to every
    worker. It skips a shard that an earlier attempt of the task has committed.
    """

    root: Root
    todo: Path
    shards: pa.RecordBatch
    extraction: Extraction
    folder: Path
    shared: SharedShards | None = None

    def __call__(self, number: int) -> bytes:
        shard = Shard.unpack(self.shards, number)
        if self._is_committed(shard):
            return b"{}"
        group = self.shared.rows(shard.number) if self.shared else read_group(self.todo, shard.number)
        seconds: dict[str, float] = {}
        batches = infer_features(_image_rows(shard.rows_in(group), self.root), self.extraction, cpu_seconds=seconds)
        outcomes = pa.Table.from_batches(batches)
        inferred = time.process_time()
        good = outcomes["reason"].is_null()
        self._commit(shard, outcomes.filter(good), outcomes.filter(outcomes["reason"].is_valid()))
        seconds["write"] = time.process_time() - inferred
        return json.dumps(seconds).encode()

    def _is_committed(self, shard: Shard) -> bool:
        if self.shared is not None:
            return self.shared.holds(shard.key)
        return read_marker(self.folder, shard.key) is not None

    def _commit(self, shard: Shard, features: pa.Table, rejects: pa.Table) -> None:
        if self.shared is not None:
            self.shared.commit(shard, features, rejects, self.folder)
        else:
            commit(self.folder, shard, features, rejects)


def _image_rows(rows: pa.Table, root: Root) -> Iterator[ImageRow]:
    columns = (rows[name].to_pylist() for name in ("path", "split", "label", "bytes"))
    return (ImageRow(path, split, label, size, root) for path, split, label, size in zip(*columns, strict=True))


def wake(number: int) -> bytes:  # noqa: ARG001 - a task's number
    """Import the modules of `ExtractShards`, as a task. Spark's first job takes seconds for any task."""
    return b""
