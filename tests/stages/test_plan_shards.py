from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mission9.output.layout import done_file
from mission9.output.shards import Shard, clear_away, commit, read_features, read_marker, read_rejects
from mission9.output.tables import read_group
from mission9.schema import FEATURES_TABLE, LISTING, REJECTS_TABLE
from mission9.stages import plan_shards as module
from mission9.stages import reuse
from mission9.stages.compact_shards import CompactParts
from mission9.stages.plan_shards import (
    MAX_PART_IMAGES,
    PART_IMAGES,
    SHARD_BYTES,
    Plan,
    plan_shards,
)
from mission9.stages.reuse import ReusableShards

MOST = 256


def listing(rows: list[dict[str, Any]], batch: int = 1000) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), batch):
        yield pa.RecordBatch.from_pylist(rows[start : start + batch], schema=LISTING)


REJECTED = ("stage", "reason", "message")


def row(n: int, split: str = "Training", label: str = "a", size: int = 5000) -> dict[str, Any]:
    return {"path": f"{split}/{label}/{n:06d}.jpg", "split": split, "label": label, "bytes": size, "modified": n}


def plan(rows: list[dict[str, Any]], folder: Path, batch: int = 1000) -> Plan:
    return plan_shards(listing(rows, batch), ReusableShards(folder), folder, MOST)


def rows_of(made: Plan, shard: Shard) -> pa.Table:
    return shard.rows_in(read_group(made.todo, shard.number))


def extract(made: Plan, folder: Path, *, only: int | None = None, rejected: tuple[str, ...] | None = None) -> None:
    """Commit the shards to do, each image with its number as features, or all `rejected`: stage, reason, message."""
    for shard in made.shards[:only]:
        rows = rows_of(made, shard)
        keys = {name: rows[name] for name in ("path", "split", "label", "bytes")}
        if rejected:
            extra = {name: [value] * len(rows) for name, value in zip(REJECTED, (*rejected, "m")[:3], strict=True)}
            rejects = pa.table(keys | extra).select(REJECTS_TABLE.names).cast(REJECTS_TABLE)
            commit(folder, shard, FEATURES_TABLE.empty_table(), rejects)
        else:
            vectors = [[float(n)] * 1280 for n in rows["modified"].to_pylist()]
            facts = {"width": [1] * len(rows), "height": [1] * len(rows)}
            shas = {"sha256": ["s"] * len(rows)}
            table = pa.table(
                keys | facts | shas | {"features": pa.array(vectors, FEATURES_TABLE.field("features").type)}
            )
            commit(folder, shard, table.select(FEATURES_TABLE.names).cast(FEATURES_TABLE), REJECTS_TABLE.empty_table())


def compact(made: Plan, folder: Path) -> list[str]:
    """Commit the parts, clear away the shards, and tell the paths of the finished table."""
    todo = tuple(part for part in made.parts if not read_marker(folder, part.key))
    for number in range(len(todo)):
        CompactParts(made.images, todo, folder)(number)
    shutil.copyfile(made.images, done_file(folder))
    clear_away(folder)
    tables = [read_features(folder, part.key) for part in made.parts]
    for table in tables:  # features are those of the row's own image
        assert table["features"].combine_chunks().flatten().to_pylist()[::1280] == [
            int(path[-10:-4]) for path in table["path"].to_pylist()
        ]
    return [path for table in tables for path in table["path"].to_pylist()]


def test_shards_hold_every_row_once_in_order_and_keep_splits_apart(tmp_path: Path) -> None:
    rows = [row(n, "Test") for n in range(700)] + [row(n) for n in range(1200)]
    for batch in (1, 7, 300, 5000):
        made = plan(rows, tmp_path, batch)
        tables = [rows_of(made, shard) for shard in made.shards]
        assert [row for table in tables for row in table.to_pylist()] == rows
        assert [shard.images for shard in made.shards] == [234, 234, 232, 240, 240, 240, 240, 240]
        assert all(set(t["split"].to_pylist()) == {s.split} for s, t in zip(made.shards, tables, strict=True))
        assert [(part.split, part.images) for part in made.parts] == [("Test", 700), ("Training", 1200)]


def test_the_footer_of_the_rows_to_do_grows_with_parts_and_not_with_shards(tmp_path: Path) -> None:
    """Each worker reads it, and an encrypted file cannot have a row group for each of 32,768 shards."""
    made = plan([row(n) for n in range(2 * MAX_PART_IMAGES)], tmp_path)
    assert len(made.shards) == 128
    assert pq.read_metadata(made.todo).num_row_groups == len(made.parts) == 2


def test_large_files_make_a_shard_shorter_and_a_huge_one_stands_alone(tmp_path: Path) -> None:
    rows = [row(0), row(1, size=2 * SHARD_BYTES), row(2), *(row(n, size=SHARD_BYTES // 2) for n in range(3, 6))]
    assert [shard.images for shard in plan(rows, tmp_path).shards] == [1, 1, 2, 2]


def test_parts_end_with_a_label_unless_it_is_huge(tmp_path: Path) -> None:
    rows = [row(n, label=f"l{n // 5000:02d}") for n in range(20_000)]
    assert [part.images for part in plan(rows, tmp_path).parts] == [10_000, 10_000]
    assert PART_IMAGES < 10_000
    rows = [row(n) for n in range(MAX_PART_IMAGES + 1)]
    assert [part.images for part in plan(rows, tmp_path).parts] == [MAX_PART_IMAGES, 1]


def test_nothing_to_plan(tmp_path: Path) -> None:
    assert plan([], tmp_path).parts == ()


def test_what_is_committed_is_not_planned_again(tmp_path: Path) -> None:
    rows = [row(n) for n in range(1000)]
    first = plan(rows, tmp_path)
    extract(first, tmp_path, only=2)
    second = plan(rows, tmp_path)  # as after a kill in the middle
    assert second.images_to_do == 1000 - 2 * 250
    extract(second, tmp_path)
    assert compact(second, tmp_path) == [row["path"] for row in rows]
    third = plan(rows, tmp_path)
    assert third.shards == ()
    assert third.parts == second.parts  # and so no file is written again


def test_killed_between_parts_the_next_run_gathers_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PART_IMAGES", 400)
    rows = [row(n) for n in range(1000)]
    first = plan(rows, tmp_path)
    extract(first, tmp_path)
    CompactParts(first.images, first.parts, tmp_path)(1)
    second = plan(rows, tmp_path)
    assert second.shards == ()
    assert second.parts[1] == first.parts[1]
    assert compact(second, tmp_path) == [row["path"] for row in rows]


def test_new_changed_and_deleted_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_IMAGES", 300)
    labels = [f"l{n}" for n in range(4)]
    rows = [row(n, label=label) for label in labels for n in range(0, 600, 2)]
    first = plan(rows, tmp_path)
    extract(first, tmp_path)
    compact(first, tmp_path)
    changed = rows[310] | {"modified": rows[310]["modified"], "bytes": 4999}
    later = sorted([*rows[:310], changed, *rows[312:], row(101, label="l1")], key=lambda row: row["path"])
    second = plan(later, tmp_path)
    assert second.images_to_do == 2
    assert [len(rows_of(second, shard)) for shard in second.shards] == [2]
    assert [new == old for new, old in zip(second.parts, first.parts, strict=True)] == [True, False, True, True]
    extract(second, tmp_path)
    assert compact(second, tmp_path) == [row["path"] for row in later]


@pytest.mark.parametrize(
    ("rejected", "again"),
    [
        (("read", "permission_denied"), 30),
        (("decode", "timeout"), 30),
        (("decode", "out_of_memory"), 30),
        (("decode", "decoder_crashed"), 30),
        (("decode", "corrupt"), 0),
    ],
)
def test_what_may_go_well_another_time_is_tried_again(tmp_path: Path, rejected: tuple[str, str], again: int) -> None:
    rows = [row(n) for n in range(30)]
    first = plan(rows, tmp_path)
    extract(first, tmp_path, rejected=rejected)
    compact(first, tmp_path)
    second = plan(rows, tmp_path)
    assert second.images_to_do == again
    if again:
        extract(second, tmp_path)
        assert len(compact(second, tmp_path)) == 30
        assert len(read_rejects(tmp_path, second.parts[0].key)) == 0


@pytest.mark.parametrize(
    ("message", "installed", "again"),
    [
        ("HEIC is not supported: pip install 'mission9[heic]', or convert it to one of JPEG", ["AVIF", "HEIC"], 30),
        ("HEIC is not supported: convert it to one of JPEG", ["HEIC"], 30),
        ("HEIC is not supported: convert it to one of JPEG", ["AVIF"], 0),
        ("AVIF is not supported: convert it to one of JPEG", ["AVIF"], 30),
        ("AVIF is not supported: convert it to one of JPEG", [], 0),
        ("EPS is not supported: convert it to one of JPEG", ["AVIF", "HEIC"], 0),
    ],
)
def test_an_unsupported_format_is_tried_again_once_its_decoder_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, installed: list[str], again: int
) -> None:
    rows = [row(n) for n in range(30)]
    others = [row(n, label="b") for n in range(100, 400)]
    monkeypatch.setattr(reuse, "installed_formats", list)
    first = plan(rows, tmp_path)
    extract(first, tmp_path, rejected=("decode", "unsupported_format", message))
    more = plan([*rows, *others], tmp_path)
    extract(more, tmp_path)
    monkeypatch.setattr(reuse, "installed_formats", lambda: installed)
    second = plan([*rows, *others], tmp_path)
    assert [row for shard in second.shards for row in rows_of(second, shard).to_pylist()] == rows[:again]


def test_what_a_check_denies_is_planned_again(tmp_path: Path) -> None:
    rows = [row(n) for n in range(300)]
    first = plan(rows, tmp_path)
    extract(first, tmp_path)
    compact(first, tmp_path)

    def check(rows: pa.RecordBatch, keys: pa.Array) -> pa.Array:
        return pc.not_equal(rows["modified"], 7)

    second = plan_shards(listing(rows), ReusableShards(tmp_path, check=check), tmp_path, MOST)
    assert read_group(second.todo, 0)["modified"].to_pylist() == [7]
    extract(second, tmp_path)
    assert compact(second, tmp_path) == [row["path"] for row in rows]


def test_another_input_given_by_mistake_makes_nothing_unknown(tmp_path: Path) -> None:
    rows = [row(n) for n in range(300)]
    first = plan(rows, tmp_path)
    extract(first, tmp_path)
    compact(first, tmp_path)
    assert plan([row(n, label="other") for n in range(300)], tmp_path).images_to_do == 300  # and then Ctrl-C
    assert plan(rows, tmp_path).images_to_do == 0


def test_names_that_sort_differently_as_text_and_as_bytes(tmp_path: Path) -> None:
    # By bytes "\xff" comes after "é"; as text its escape "\\xff" would come before.
    rows = [row(0) | {"path": path} for path in ("a/\\x5c", "a/é000000.jpg", "a/\\xff.jpg")]
    made = plan(rows, tmp_path)
    for shard in made.shards:
        commit(tmp_path, shard, _featured(rows_of(made, shard)), REJECTS_TABLE.empty_table())
    assert plan(rows, tmp_path).shards == ()


def _featured(rows: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([{"path": path} for path in rows["path"].to_pylist()], FEATURES_TABLE)


def test_a_damaged_plan_is_as_none(tmp_path: Path) -> None:
    made = plan([row(n) for n in range(30)], tmp_path)
    extract(made, tmp_path)
    made.images.write_bytes(b"PAR1 and no more")
    assert plan([row(n) for n in range(30)], tmp_path).images_to_do == 30


def test_a_part_that_is_one_shard_is_that_shard(tmp_path: Path) -> None:
    made = plan([row(n) for n in range(30)], tmp_path)
    assert made.parts == (Shard(0, made.shards[0].key, "Training", 30),)
