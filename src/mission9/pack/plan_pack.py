"""Rows of a listing -> those that a pack holds already, and parts of the right size for the rest."""

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

# Large enough for a short listing of parts and for the cost of a request to be negligible; small enough for a worker to
# make one in a minute. A part below half of both limits is made again, together with new images.
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


class PackedRow(NamedTuple):
    """A row of an earlier plan."""

    row: Row
    part: str


@dataclass(frozen=True, kw_only=True)
class DoneParts:
    """Finished work: whole `parts`; those named in the manifest, `shown`; and the images in them that were `unread`."""

    parts: Collection[str] = ()
    shown: Collection[str] = ()
    unread: Collection[str] = ()

    def holds(self, known: PackedRow, row: Row | None) -> bool:
        """Return True if the row needs no more work."""
        return known.row == row and known.part in self.parts and not self.is_to_try(known)

    def is_to_try(self, known: PackedRow) -> bool:
        """Return True if an image was unreadable, and is retried.

        A part that no manifest names is from a killed call, and has been retried in it.
        """
        return known.part in self.shown and known.row.path in self.unread


class Part(NamedTuple):
    """A part to make: the `number`-th row group of the pending rows."""

    number: int
    key: str
    images: int


@dataclass
class PackPlan:
    """The rows of all images and the pending ones; `parts` are still to be made, `kept` are finished."""

    images: Path
    todo: Path
    parts: list[Part] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    todo_images: int = 0
    gone: int = 0


def plan_pack(listing: Path, earlier: Path | None, folder: Path, done: DoneParts) -> PackPlan:
    """Divide the pending rows into new parts. Both files of the plan are written into `folder`.

    A part with a changed or missing image is made again, so that readers of the parts as tables see each current image
    exactly once. Unreadable images are retried.
    """
    plan = PackPlan(folder / "plan.parquet", folder / "todo.parquet")
    stale, plan.gone = _stale(listing, earlier, done)
    usable = replace(done, parts=set(done.parts) - stale)
    with TableWriter(plan.images, PACK_PLAN) as images, TableWriter(plan.todo, LISTING) as todo:
        cutter = _Cutter(todo, plan)
        for pairs in _batches(_pair(_rows(listing), _known(earlier))):
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


def _stale(listing: Path, earlier: Path | None, done: DoneParts) -> tuple[set[str], int]:
    """The parts with images that are no longer listed, and the number of such rows.

    If there is any work to do, small parts are included.
    """
    stale: set[str] = set()
    sizes: Counter[str] = Counter()
    images: Counter[str] = Counter()
    gone = fresh = 0
    for row, known in _pair(_rows(listing), _known(earlier)):
        if known is not None and done.is_to_try(known):
            continue  # it is in no part, and its readability is no reason to make other parts again
        if known is not None and known.part in done.parts:
            sizes[known.part] += known.row.bytes
            images[known.part] += 1
            if known.row != row:
                stale.add(known.part)
                gone += 1
        fresh += row is not None and not (known is not None and done.holds(known, row))
    small = {part for part, size in sizes.items() if 2 * size < PART_BYTES and 2 * images[part] < PART_IMAGES}
    return (stale | small if fresh or stale or len(small) > 1 else stale), gone


def _pair(rows: Iterator[Row], earlier: Iterator[PackedRow]) -> Iterator[tuple[Row | None, PackedRow | None]]:
    """Each row with the known row of its path, and known rows without a listed one; both inputs are sorted by path."""
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


def _known(plan: Path | None) -> Iterator[PackedRow]:
    for group in row_groups(plan) if plan is not None else ():
        rows = map(Row, *(group[name].to_pylist() for name in LISTING.names))
        yield from map(PackedRow, rows, group["part"].to_pylist())


def _batches(pairs: Iterable[tuple[Row | None, PackedRow | None]]) -> Iterator[list[tuple[Row, PackedRow | None]]]:
    """The rows with their known rows, in batches."""
    there = ((row, known) for row, known in pairs if row is not None)
    while batch := list(islice(there, _BATCH)):
        yield batch


def _batch(columns: list[list[str] | list[int]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


class _Cutter:
    """Divides pending rows into parts, a row group each."""

    def __init__(self, todo: TableWriter, plan: PackPlan) -> None:
        self._todo, self._plan = todo, plan
        self._begin()

    def _begin(self) -> None:
        self._rows: list[Row] = []
        self._key, self._bytes = uuid.uuid4().hex, 0

    def add(self, row: Row) -> str:
        """Add a row to a part; return the part's key."""
        is_full = self._bytes + row.bytes > PART_BYTES or len(self._rows) == PART_IMAGES
        if self._rows and is_full:
            self.end()
        self._rows.append(row)
        self._bytes += row.bytes
        return self._key

    def end(self) -> None:
        """Close the current part."""
        if self._rows:
            columns = [list(column) for column in zip(*self._rows, strict=True)]
            self._todo.write_batch(_batch(columns, LISTING), row_group_size=len(self._rows))
            self._plan.parts.append(Part(len(self._plan.parts), self._key, len(self._rows)))
            self._plan.todo_images += len(self._rows)
        self._begin()
