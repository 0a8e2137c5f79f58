from __future__ import annotations

import json
import pickle
import pickletools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9.errors import ConservationError
from mission9.output.shards import Shard, commit, features_file, read_marker, read_rejects, rejects_file, sweep
from mission9.output.tables import TableWriter
from mission9.schema import FEATURES_TABLE, PLAN, REJECTS_TABLE
from mission9.stages.collect_shards import collect_shards
from mission9.stages.compact_shards import CompactParts


def features(count: int) -> pa.Table:
    rows = [
        {"path": f"{n}.jpg", "split": "all", "label": "a", "width": 1, "height": 1, "bytes": 1, "sha256": "s"}
        | {"features": [float(n)] * 1280}
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=FEATURES_TABLE)


def rejects(count: int) -> pa.Table:
    rows = [
        {"path": f"bad{n}.jpg", "split": "all", "label": "a", "bytes": 1}
        | {"stage": "decode", "reason": "corrupt", "message": "m"}
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS_TABLE)


def shard(number: int = 0, images: int = 5) -> Shard:
    return Shard(number, f"key{number}", "all", images)


def test_a_committed_shard_holds_both_tables_and_is_done(tmp_path: Path) -> None:
    commit(tmp_path, shard(), features(3), rejects(2))
    marker = read_marker(tmp_path, "key0")
    assert marker is not None
    assert (marker.features.rows, marker.rejects.rows, marker.images) == (3, 2, 5)
    assert pq.read_schema(features_file(tmp_path, "key0")).equals(FEATURES_TABLE)
    assert pq.read_table(features_file(tmp_path, "key0"))["path"].to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert pq.read_schema(rejects_file(tmp_path, "key0")).equals(REJECTS_TABLE)
    assert read_marker(tmp_path, "key1") is None


def test_lost_or_doubled_rows_are_never_committed(tmp_path: Path) -> None:
    for bad in (1, 3):
        with pytest.raises(RuntimeError, match="5 images"):
            commit(tmp_path, shard(), features(3), rejects(bad))
    assert read_marker(tmp_path, "key0") is None


@pytest.mark.parametrize("damage", ["no marker", "half a marker", "other marker", "no table", "short table"])
def test_a_shard_that_is_not_whole_is_not_done(tmp_path: Path, damage: str) -> None:
    commit(tmp_path, shard(), features(3), rejects(2))
    marker, table = tmp_path / "key0.json", features_file(tmp_path, "key0")
    if damage == "no marker":
        marker.unlink()
    elif damage == "half a marker":
        marker.write_bytes(marker.read_bytes()[:40])
    elif damage == "other marker":
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"key": "key1"}))
    elif damage == "no table":
        table.unlink()
    else:
        table.write_bytes(table.read_bytes()[:-1])
    assert read_marker(tmp_path, "key0") is None


def test_a_second_try_takes_the_place_of_the_first(tmp_path: Path) -> None:
    commit(tmp_path, shard(), features(3), rejects(2))
    commit(tmp_path, shard(), features(5), rejects(0))
    marker = read_marker(tmp_path, "key0")
    assert marker is not None
    assert (marker.features.rows, marker.rejects.rows) == (5, 0)
    assert not rejects_file(tmp_path, "key0").exists()


def test_a_table_of_a_failed_try_is_none_of_the_shard(tmp_path: Path) -> None:
    commit(tmp_path, shard(), features(3), rejects(2))
    left_over = rejects_file(tmp_path, "key0").read_bytes()
    commit(tmp_path, shard(), features(5), rejects(0))
    rejects_file(tmp_path, "key0").write_bytes(left_over)
    assert not len(read_rejects(tmp_path, "key0"))
    names = [f"{n}.jpg" for n in range(3)] + ["bad0.jpg", "bad1.jpg"]
    rows = [{"path": name, "split": "all", "shard": "key0", "part": "part0"} for name in names]
    with TableWriter(tmp_path / "plan.parquet", PLAN) as plan:
        plan.write_table(pa.Table.from_pylist(rows, schema=PLAN))
    part = Shard(0, "part0", "all", 3)
    CompactParts(tmp_path / "plan.parquet", (part,), tmp_path)(0)
    marker = read_marker(tmp_path, "part0")
    assert marker is not None
    assert (marker.features.rows, marker.rejects.rows) == (3, 0)


def test_collecting_counts_every_row_and_sweeping_leaves_only_what_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, (good, bad) in enumerate([(3, 2), (5, 0), (0, 5)]):
        commit(folder, shard(number), features(good), rejects(bad))
    commit(folder, shard(9), features(5), rejects(0))
    (folder / ".key1.features.parquet.123").write_bytes(b"a try that was killed")
    shards = [shard(0), shard(1), shard(2)]
    collected = collect_shards(shards, folder, features=tmp_path / "features", rejects=tmp_path / "rejects")
    assert collected.featured["all"] == 8
    assert [rows.read(["path"]).num_rows for rows in collected.features["all"]] == [3, 5]
    assert collected.rejected["all"] == {"corrupt": 7}
    assert len(pq.read_table(tmp_path / "features")) == 8
    assert len(pq.read_table(tmp_path / "rejects")) == 7
    sweep(folder, {"key0", "key1", "key2"})
    assert {file.name.split(".")[0] for file in folder.iterdir()} == {"key0", "key1", "key2"}
    with pytest.raises(ConservationError, match="not committed"):
        collect_shards([shard(9)], folder, features=tmp_path / "f2", rejects=tmp_path / "r2")


def test_workers_load_as_many_objects_for_many_shards_as_for_few() -> None:
    few, many = ([Shard(n // 32, f"key{n}", "all", 256, 256 * (n % 32)) for n in range(count)] for count in (3, 3000))
    packed = Shard.pack(many)
    assert [Shard.unpack(packed, number) for number in range(3000)] == many
    steps = [len(list(pickletools.genops(pickle.dumps(Shard.pack(shards))))) for shards in (few, many)]
    assert steps[1] < steps[0] + 20
    assert len(Shard.pack([])) == 0
