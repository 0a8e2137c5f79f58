"""Committed shards and the plans that name them -> the same without erased images."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mission9.erasure.tombstones import Tombstones
from mission9.files import appearing, files_in, remove_file
from mission9.schema import PLAN
from mission9.shards import (
    Shard,
    commit,
    damaged,
    features_file,
    read_features,
    read_marker,
    read_rejects,
    rejects_file,
    sweep,
)
from mission9.stages.find_known import done_file, plan_file
from mission9.tables import TableWriter, read_table, row_groups

logger = logging.getLogger(__name__)

_DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError)


def raise_if_of_the_system(error: Exception) -> None:
    """Raise what a disk or file system says again: it tells nothing of what a file holds, as Arrow's errors do."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def rewrite(folder: Path, erased: Tombstones) -> int:
    """Take erased images out of the shards committed in `folder` and out of its plans; how many there were.

    New shards are committed first, then the plans name them, then the old ones go: killed at any moment and called
    again, it ends in the same. What is damaged goes as a whole, since nobody can tell what is in it.
    """
    names = {file.stem for file in files_in(folder) if file.suffix == ".json"}
    renamed: dict[str, str] = {}
    count = 0
    for key in sorted(names):
        new, rows = _rewrite_shard(folder, key, erased)
        renamed[key] = new
        count += rows
    kept = {new for new in renamed.values() if new}
    for plan in (plan_file(folder), done_file(folder)):
        _rewrite_plan(plan, renamed, erased)
    remove_file(folder / "todo.parquet")  # a run writes it anew
    sweep(folder, kept | {file.stem for file in (plan_file(folder), done_file(folder))})
    return count


def _rewrite_shard(folder: Path, key: str, erased: Tombstones) -> tuple[str, int]:
    """The key of a shard without erased images, empty where nothing is left of it; and how many there were."""
    if read_marker(folder, key) is None or damaged(folder, key):
        logger.warning("the shard %s is damaged, and is deleted: the next run computes it anew", key)
        return "", 0
    files = [file for file in (features_file(folder, key), rejects_file(folder, key)) if file.exists()]
    if not any(erased.holds(read_table(file, ["path"])["path"]).true_count for file in files):
        return key, 0
    features, rejects = read_features(folder, key), read_rejects(folder, key)
    there = len(features) + len(rejects)
    features, rejects = _without(features, erased), _without(rejects, erased)
    left = len(features) + len(rejects)
    if not left:
        return "", there
    split = (features if len(features) else rejects)["split"][0].as_py()
    shard = Shard(0, uuid.uuid4().hex, split, left)
    commit(folder, shard, features, rejects)
    return shard.key, there - left


def _rewrite_plan(plan: Path, renamed: dict[str, str], erased: Tombstones) -> None:
    """The rows of a plan that are not erased, with the new keys of shards; no file where none are left."""
    if not plan.exists():
        return
    try:
        with appearing(plan) as whole:
            left = 0
            with TableWriter(whole, PLAN) as writer:
                for group in row_groups(plan):
                    rows = _without(group.cast(PLAN), erased)
                    if len(rows):
                        writer.write_table(_renamed(rows, renamed), row_group_size=len(rows))
                    left += len(rows)
    except _DAMAGE as error:
        raise_if_of_the_system(error)
        logger.warning("%s is damaged, and is deleted: %s", plan, error)
        left = 0
    if not left:
        remove_file(plan)


def _renamed(rows: pa.Table, renamed: dict[str, str]) -> pa.Table:
    for name in ("shard", "part"):
        keys = [renamed.get(key) or key for key in rows[name].to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index(name), PLAN.field(name), pa.array(keys, pa.string()))
    return rows


def _without(rows: pa.Table, erased: Tombstones) -> pa.Table:
    return rows.filter(pc.invert(erased.holds(rows["path"])))
