"""Rows of a listing -> which of them a pack holds already, and parts of a right size for the rest."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from mission9.output.tables import TableWriter, row_groups
from mission9.schema import LISTING
from mission9.sources.pack.layout import PACK_PLAN
from mission9.storage.local.names import from_text

# Large enough that a listing of parts is nothing and a request costs nothing beside what it brings; small enough that a
# worker makes one in a minute. One below half of both is made anew together with what is new.
PART_BYTES = 256 * 1024 * 1024
PART_IMAGES = 50_000

_BATCH = 10_000


class Row(NamedTuple):
    """A row of a listing."""

    path: str
    split: str
    label: str
    bytes: int
    modified: int


class Known(NamedTuple):
    """A row of an earlier plan."""

    row: Row
    part: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """The work of earlier calls: whole `parts`, and of those that the manifest names, `shown`, what was `unread`."""

    parts: Collection[str] = ()
    shown: Collection[str] = ()
    unread: Collection[str] = ()

    def holds(self, known: Known, row: Row | None) -> bool:
        """Tell whether it is done what is to be done for a row."""
        return known.row == row and known.part in self.parts and not self.is_to_try(known)

    def is_to_try(self, known: Known) -> bool:
        """Tell whether an image could not be read, and is tried again.

        A part that no manifest names is of a call that was killed: what it holds by now, it has tried again.
        """
        return known.part in self.shown and known.row.path in self.unread


class Part(NamedTuple):
    """A part to make: the `number`-th row group of the rows to do."""

    number: int
    key: str
    images: int


@dataclass
class PackPlan:
    """The rows of all images and of those to do; `parts` are to be made, `kept` is done."""

    images: Path
    todo: Path
    parts: list[Part] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    todo_images: int = 0
    gone: int = 0


def plan_pack(listing: Path, earlier: Path | None, folder: Path, done: Done) -> PackPlan:
    """Cut what is not done into new parts. Both files of the plan are written into `folder`.

    A part that holds an image which has changed, or is gone, is made anew, so that whoever reads the parts as tables
    sees the images that there are, each once. What could not be read is tried again.
    """
    plan = PackPlan(folder / "plan.parquet", folder / "todo.parquet")
    stale, plan.gone = _stale(listing, earlier, done)
    usable = replace(done, parts=set(done.parts) - stale)
    with TableWriter(plan.images, PACK_PLAN) as images, TableWriter(plan.todo, LISTING) as todo:
        cutter = _Cutter(todo, plan)
        for pairs in _batches(_beside(_rows(listing), _known(earlier))):
            keys = []
            for row, known in pairs:
                if known is not None and usable.holds(known, row):
                    plan.kept.add(known.part)
                    keys.append(known.part)
                else:
                    keys.append(cutter.add(row))
            columns = [list(column) for column in zip(*(row for row, _ in pairs), strict=True)]
            images.write_batch(_batch([*columns, keys], PACK_PLAN))
        cutter.end()
    return plan


def _stale(listing: Path, earlier: Path | None, done: Done) -> tuple[set[str], int]:
    """The parts that hold what is not listed any more, and how many of such rows there are.

    Where there is anything to do, the parts that are small as well.
    """
    stale: set[str] = set()
    sizes: Counter[str] = Counter()
    images: Counter[str] = Counter()
    gone = fresh = 0
    for row, known in _beside(_rows(listing), _known(earlier)):
        if known is not None and done.is_to_try(known):
            continue  # it is in no part, and whether it can be read now is no reason to make others anew
        if known is not None and known.part in done.parts:
            sizes[known.part] += known.row.bytes
            images[known.part] += 1
            if known.row != row:
                stale.add(known.part)
                gone += 1
        fresh += row is not None and not (known is not None and done.holds(known, row))
    small = {part for part, size in sizes.items() if 2 * size < PART_BYTES and 2 * images[part] < PART_IMAGES}
    return (stale | small if fresh or stale or len(small) > 1 else stale), gone


def _beside(rows: Iterator[Row], earlier: Iterator[Known]) -> Iterator[tuple[Row | None, Known | None]]:
    """Each row with what was known of its path, and what is known alone; both come in order of path."""
    known = next(earlier, None)
    for row in rows:
        here = from_text(row.path)
        while known is not None and from_text(known.row.path) < here:
            yield None, known
            known = next(earlier, None)
        if known is not None and known.row.path == row.path:
            yield row, known
            known = next(earlier, None)
        else:
            yield row, None
    while known is not None:
        yield None, known
        known = next(earlier, None)


def _rows(listing: Path) -> Iterator[Row]:
    for group in row_groups(listing):
        yield from map(Row, *(group[name].to_pylist() for name in LISTING.names))


def _known(plan: Path | None) -> Iterator[Known]:
    for group in row_groups(plan) if plan is not None else ():
        rows = map(Row, *(group[name].to_pylist() for name in LISTING.names))
        yield from map(Known, rows, group["part"].to_pylist())


def _batches(pairs: Iterable[tuple[Row | None, Known | None]]) -> Iterator[list[tuple[Row, Known | None]]]:
    """The rows with what was known of each, so many at a time."""
    there = ((row, known) for row, known in pairs if row is not None)
    while batch := list(islice(there, _BATCH)):
        yield batch


def _batch(columns: list[list[str] | list[int]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


class _Cutter:
    """Rows to do, cut into parts, a row group each."""

    def __init__(self, todo: TableWriter, plan: PackPlan) -> None:
        self._todo, self._plan = todo, plan
        self._begin()

    def _begin(self) -> None:
        self._rows: list[Row] = []
        self._key, self._bytes = uuid.uuid4().hex, 0

    def add(self, row: Row) -> str:
        """Put a row into a part, and tell which."""
        is_full = self._bytes + row.bytes > PART_BYTES or len(self._rows) == PART_IMAGES
        if self._rows and is_full:
            self.end()
        self._rows.append(row)
        self._bytes += row.bytes
        return self._key

    def end(self) -> None:
        """Close the part at hand."""
        if self._rows:
            columns = [list(column) for column in zip(*self._rows, strict=True)]
            self._todo.write_batch(_batch(columns, LISTING), row_group_size=len(self._rows))
            self._plan.parts.append(Part(len(self._plan.parts), self._key, len(self._rows)))
            self._plan.todo_images += len(self._rows)
        self._begin()
