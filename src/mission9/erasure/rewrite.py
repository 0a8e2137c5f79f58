"""Committed shards, and the plans that name them -> the same without erased images."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mission9.output.layout import done_file, plan_file, todo_file
from mission9.output.shards import (
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
from mission9.output.tables import DAMAGE, TableWriter, read_table, row_groups
from mission9.output.tombstones import Tombstones
from mission9.schema import PLAN
from mission9.storage.local.files import atomic_path, files_in, remove_file

logger = logging.getLogger(__name__)


def raise_if_of_the_system(error: Exception) -> None:
    """Raise the OS error behind an Arrow error again: it says nothing about a file's content."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def rows_of(folder: Path, erased: Tombstones) -> int:
    """Count the rows of erased images in the shards committed in `folder`; a damaged shard counts as none."""
    count = 0
    for key in _keys(folder):
        try:
            count += sum(erased.holds(read_table(file, ["path"])["path"]).true_count for file in _tables(folder, key))
        except DAMAGE as error:
            raise_if_of_the_system(error)
    return count


def rewrite(folder: Path, erased: Tombstones) -> None:
    """Remove erased images from the shards committed in `folder`, and from its plans.

    New shards are committed first, then the plans are changed to name them, then all shards that no plan names are
    deleted: the old ones, and those of an earlier call that was killed. The call is idempotent, and may be killed at
    any moment. Damaged files are deleted as a whole, since their content is unknown.
    """
    renamed = {key: _rewrite_shard(folder, key, erased) for key in _keys(folder)}
    plans = (plan_file(folder), done_file(folder))
    named = set[str]().union(*(_rewrite_plan(plan, renamed, erased) for plan in plans))
    remove_file(todo_file(folder))  # a run rewrites it
    sweep(folder, named.intersection(filter(None, renamed.values())) | {plan.stem for plan in plans})


def _keys(folder: Path) -> list[str]:
    return sorted(file.stem for file in files_in(folder) if file.suffix == ".json")


def _tables(folder: Path, key: str) -> list[Path]:
    return [file for file in (features_file(folder, key), rejects_file(folder, key)) if file.exists()]


def _rewrite_shard(folder: Path, key: str, erased: Tombstones) -> str:
    """Rewrite a shard without erased images; return its new key, or an empty text if no rows are left."""
    if read_marker(folder, key) is None or damaged(folder, key):
        logger.warning("deleting the damaged shard %s: the next run computes it again", key)
        return ""
    if not any(erased.holds(read_table(file, ["path"])["path"]).true_count for file in _tables(folder, key)):
        return key
    features, rejects = _without(read_features(folder, key), erased), _without(read_rejects(folder, key), erased)
    left = len(features) + len(rejects)
    if not left:
        return ""
    split = (features if len(features) else rejects)["split"][0].as_py()
    shard = Shard(0, uuid.uuid4().hex, split, left)
    commit(folder, shard, features, rejects)
    return shard.key


def _rewrite_plan(plan: Path, renamed: dict[str, str], erased: Tombstones) -> set[str]:
    """Remove erased rows from a plan and rename its shards; return their keys. A plan without rows is deleted."""
    if not plan.exists():
        return set()
    named = set[str]()
    try:
        with atomic_path(plan) as whole, TableWriter(whole, PLAN) as writer:
            for group in row_groups(plan):
                rows = _without(group.cast(PLAN), erased)
                if len(rows):
                    rows = _renamed(rows, renamed)
                    writer.write_table(rows, row_group_size=len(rows))
                    named.update(rows["shard"].to_pylist(), rows["part"].to_pylist())
    except DAMAGE as error:
        raise_if_of_the_system(error)
        logger.warning("deleting the damaged plan %s: %s", plan, error)
        named = set()
    if not named:
        remove_file(plan)
    return named


def _renamed(rows: pa.Table, renamed: dict[str, str]) -> pa.Table:
    for name in ("shard", "part"):
        keys = [renamed.get(key) or key for key in rows[name].to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index(name), PLAN.field(name), pa.array(keys, pa.string()))
    return rows


def _without(rows: pa.Table, erased: Tombstones) -> pa.Table:
    return rows.filter(pc.invert(erased.holds(rows["path"])))
