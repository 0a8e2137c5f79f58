"""A shard's number -> its features and rejects, committed; runs on the workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mission9.shards import Shard, commit
from mission9.stages.infer_features import Extraction, ImageRow, infer_features
from mission9.stages.plan_shards import read_group


@dataclass(frozen=True, kw_only=True)
class ExtractShards:
    """Called with a number, extracts and commits that one of `shards` into `folder`."""

    root: str
    todo: Path
    shards: tuple[Shard, ...]
    extraction: Extraction
    folder: Path

    def __call__(self, number: int) -> bytes:
        shard = self.shards[number]
        rows = read_group(self.todo, shard.number)
        outcomes = pa.Table.from_batches(infer_features(_image_rows(rows, self.root), self.extraction))
        good = outcomes["reason"].is_null()
        commit(self.folder, shard, outcomes.filter(good), outcomes.filter(outcomes["reason"].is_valid()))
        return b""


def _image_rows(rows: pa.Table, root: str) -> Iterator[ImageRow]:
    columns = (rows[name].to_pylist() for name in ("path", "split", "label", "bytes"))
    return (ImageRow(path, split, label, size, root) for path, split, label, size in zip(*columns, strict=True))
