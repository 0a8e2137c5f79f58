"""Rows of a listing -> the shards in which earlier runs have committed their outcomes, if any."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mission9.decoding.formats import installed_formats, unsupported_pattern
from mission9.output.layout import done_file, plan_file
from mission9.output.shards import damaged, read_marker, read_rejects
from mission9.output.tables import row_groups
from mission9.schema import LISTING, PLAN
from mission9.storage.local.files import is_transient, remove_file
from mission9.storage.local.names import from_text

logger = logging.getLogger(__name__)


# Rows and the keys of the shards with their outcomes -> True for each row whose file has unchanged content.
ContentCheck = Callable[[pa.RecordBatch, pa.Array], pa.Array]

# An unreadable file may be readable now, and the machine may have caused a timeout or a lack of memory. The decoder of
# an unsupported format may be installed now. Any other rejection would recur.
_UNREAD = "read"
_MACHINES_FAULT = pa.array(["timeout", "out_of_memory", "decoder_crashed"])
_UNSUPPORTED = "unsupported_format"


class ReusableShards:
    """The outcomes for a new listing in the earlier plans and committed shards of `folder`."""

    def __init__(self, folder: Path, *, check: ContentCheck | None = None) -> None:
        self._folder = folder
        self._check = check
        self._earlier = [PreviousPlan(plan_file(folder), folder), PreviousPlan(done_file(folder), folder)]

    def shards_of(self, rows: pa.RecordBatch) -> pa.Array:
        """The key of the committed shard with each row's outcome; null if the row must be computed."""
        keys = pa.nulls(len(rows), pa.string())
        for plan in self._earlier:
            if keys.null_count:
                keys = pc.coalesce(keys, plan.shards_of(rows))
        if self._check is not None and keys.null_count < len(keys):
            keys = pc.if_else(self._check(rows, keys), keys, pa.scalar(None, pa.string()))
        return keys

    def holds_just(self, key: str, images: int) -> bool:
        """Return True if the shard `key` is committed and holds exactly `images` images."""
        marker = read_marker(self._folder, key)
        return marker is not None and marker.images == images


class PreviousPlan:
    """A plan, read once in step with a listing: both are in the order of path, so neither is held in memory."""

    def __init__(self, plan: Path, folder: Path) -> None:
        self._folder = folder
        self._row_groups = _read_plan(plan)
        self._waiting = _no_rows()
        self._sound: dict[str, bool] = {}

    def shards_of(self, rows: pa.RecordBatch) -> pa.Array:
        """The key of the committed shard with each row's outcome, or null.

        Two rows are the same if their path, split, label, size and modification time are equal.
        """
        earlier = self._up_to(rows["path"][-1].as_py())
        found = earlier.take(pc.index_in(rows["path"], value_set=earlier["path"].combine_chunks()))
        same = reduce(pc.and_, (pc.equal(rows[name], found[name].combine_chunks()) for name in LISTING.names))
        return pc.if_else(same, found["shard"].combine_chunks(), pa.scalar(None, pa.string()))

    def _up_to(self, path: str) -> pa.Table:
        """Take the rows up to and including a path."""
        last = from_text(path)
        while not len(self._waiting) or from_text(self._waiting["path"][-1].as_py()) < last:
            batch = next(self._row_groups, None)
            if batch is None:
                break
            self._waiting = pa.concat_tables([self._waiting, self._committed(batch)])
        passed = bisect_right(self._waiting["path"].to_pylist(), last, key=from_text)
        rows, self._waiting = self._waiting.slice(0, passed), self._waiting.slice(passed)
        return rows

    def _committed(self, batch: pa.RecordBatch) -> pa.Table:
        """The rows of a part; the column `shard` is the key of the shard with their outcome, or null."""
        part = batch["part"][0].as_py()
        holders = pa.repeat(part, len(batch)) if self._is_sound(part) else batch["shard"]
        for key in pc.unique(holders).to_pylist():
            lost = pc.and_not(pc.equal(holders, key), self._usable(key, batch["path"]))
            holders = pc.if_else(pc.fill_null(lost, fill_value=False), pa.scalar(None, pa.string()), holders)
        return pa.table([*(batch[name] for name in LISTING.names), holders], names=[*LISTING.names, "shard"])

    def _is_sound(self, key: str) -> bool:
        """Return True if a shard is committed and its files are undamaged; delete damaged files."""
        if key not in self._sound:
            for file in damaged(self._folder, key):
                logger.warning("%s is damaged, and what it holds is computed again", file)
                remove_file(file)
            self._sound[key] = read_marker(self._folder, key) is not None
        return self._sound[key]

    def _usable(self, key: str, paths: pa.Array) -> pa.Array:
        """True for each path whose outcome in a shard can be reused."""
        marker = read_marker(self._folder, key) if self._is_sound(key) else None
        if marker is None or not marker.rejects.rows:
            return pa.array([marker is not None] * len(paths))
        rejects = read_rejects(self._folder, key)
        return pc.invert(pc.is_in(paths, value_set=rejects.filter(_may_pass(rejects))["path"].combine_chunks()))


def _may_pass(rejects: pa.Table) -> pa.ChunkedArray:
    """True for each reject that another attempt may accept."""
    unread, reason = pc.equal(rejects["stage"], _UNREAD), rejects["reason"]
    names_installed = pc.match_substring_regex(rejects["message"], unsupported_pattern(installed_formats()))
    supported = pc.and_(pc.equal(reason, _UNSUPPORTED), names_installed)
    return reduce(pc.or_, (unread, pc.is_in(reason, value_set=_MACHINES_FAULT), supported))


def nothing_is_as_it_was(rows: pa.RecordBatch, keys: pa.Array) -> pa.Array:  # noqa: ARG001 (a ContentCheck)
    """The check of a run that computes everything again: False for each row."""
    return pa.repeat(pa.scalar(value=False), len(rows))


def _read_plan(plan: Path) -> Iterator[pa.RecordBatch]:
    """The row groups of an earlier plan, up to any damage; none if the plan is absent."""
    if not plan.exists():
        return
    try:
        for group in row_groups(plan):
            if not group.schema.equals(PLAN):
                return
            yield group.combine_chunks().to_batches()[0]
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, OSError) and is_transient(error):
            raise
        logger.warning("%s is damaged, and what it lists is computed again: %s", plan, error)


def _no_rows() -> pa.Table:
    return pa.schema([*LISTING, ("shard", pa.string())]).empty_table()
