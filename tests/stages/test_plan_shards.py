from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from mission9.schema import LISTING
from mission9.stages.plan_shards import SHARD_BYTES, SHARD_IMAGES, plan_shards, read_shard


def listing(rows: list[dict[str, Any]], batch: int = 1000) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), batch):
        yield pa.RecordBatch.from_pylist(rows[start : start + batch], schema=LISTING)


def row(n: int, split: str = "Training", size: int = 5000) -> dict[str, Any]:
    return {"path": f"{split}/a/{n:06d}.jpg", "split": split, "label": "a", "bytes": size, "modified": n}


def test_shards_hold_every_row_once_in_order_and_keep_splits_apart(tmp_path: Path) -> None:
    rows = [row(n, "Test") for n in range(700)] + [row(n) for n in range(1200)]
    for batch in (1, 7, 300, 5000):
        shards = plan_shards(listing(rows, batch), tmp_path / "plan.parquet")
        tables = [read_shard(tmp_path / "plan.parquet", shard.number) for shard in shards]
        assert [row for table in tables for row in table.to_pylist()] == rows
        assert [shard.images for shard in shards] == [len(table) for table in tables]
        assert max(shard.images for shard in shards) == SHARD_IMAGES
        assert all(set(t["split"].to_pylist()) == {s.split} for s, t in zip(shards, tables, strict=True))
        assert len(shards) == 3 + 5


def test_what_a_shard_holds_does_not_depend_on_batches(tmp_path: Path) -> None:
    rows = [row(n, size=n * 997 % 3_000_000) for n in range(900)]
    plans = [plan_shards(listing(rows, batch), tmp_path / "plan.parquet") for batch in (1, 13, 900)]
    assert plans[0] == plans[1] == plans[2]


def test_large_files_make_a_shard_shorter_and_a_huge_one_stands_alone(tmp_path: Path) -> None:
    rows = [row(0), row(1, size=2 * SHARD_BYTES), row(2), *(row(n, size=SHARD_BYTES // 2) for n in range(3, 6))]
    shards = plan_shards(listing(rows), tmp_path / "plan.parquet")
    assert [shard.images for shard in shards] == [1, 1, 2, 2]


def test_a_key_names_paths_sizes_and_times(tmp_path: Path) -> None:
    def key(**change: Any) -> str:
        return plan_shards(listing([row(0) | change, row(1)]), tmp_path / "plan.parquet")[0].key

    assert key() == key()
    assert len({key(), key(path="Training/a/x.jpg"), key(bytes=1), key(modified=9)}) == 4


def test_nothing_to_plan(tmp_path: Path) -> None:
    assert plan_shards([], tmp_path / "plan.parquet") == []
