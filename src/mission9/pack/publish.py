"""A plan with all parts finished -> their index and the unreadable images; then the manifest, which publishes both."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mission9._package import __version__
from mission9.errors import ConservationError
from mission9.output.tables import TableWriter, row_groups
from mission9.pack.errors import Damaged, damage_found
from mission9.pack.plan_pack import PackPlan
from mission9.sources.pack.layout import (
    DONE,
    FILE_NAME,
    FIRST_PATHS,
    IMAGES,
    INDEX,
    INDEX_TABLE,
    MANIFEST,
    PACK_REJECTS,
    REJECTS,
    Manifest,
    done_file,
    part_file,
)
from mission9.storage.file_store import CheckLock, FileStore
from mission9.storage.local.names import from_text

_INDEX_ROWS = 2000  # read at a time to find an image


@dataclass
class PackReport:
    """Counts of a pack, and of the work that it took."""

    place: str
    source: str
    splits: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    gone: int = 0
    packed: int = 0
    rejected: int = 0
    parts: int = 0
    bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def listed(self) -> int:
        return self.splits.total()


def show_pack(store: FileStore, plan: PackPlan, report: PackReport, check_lock: CheckLock) -> None:
    """Write the index and the unreadable images, then the manifest; delete the files that are in neither.

    Raises:
        Damaged: the index rows of a finished part are damaged.
    """
    name = uuid.uuid4().hex
    index, rejects = f"{INDEX}/{name}.index.parquet", f"{REJECTS}/{name}.parquet"
    keys = plan.kept | {part.key for part in plan.parts}
    with store.writing(index) as file, store.writing(rejects) as told:
        _write_index(store, plan, file, told, report)
    if report.packed + report.rejected != report.listed:
        raise ConservationError(f"{report.listed} listed, {report.packed} packed, {report.rejected} rejected")
    lengths = store.sizes(IMAGES)
    manifest = Manifest(
        index=index,
        rejects=rejects,
        images=report.packed,
        rejected=report.rejected,
        total_bytes=report.bytes,
        splits=dict(sorted(report.splits.items())),
        skipped=dict(sorted(report.skipped.items())),
        parts={key: lengths[f"{key}.parquet"] for key in sorted(keys)},
        source=report.source,
        made_by=f"mission9 {__version__}",
    )
    store.sync()  # before any file refers to it
    check_lock()  # in a bucket, another process may have taken over an expired lock
    store.write(MANIFEST, manifest.to_json())
    store.sync()  # before the files that the old manifest names are deleted
    report.parts = len(keys)
    wanted = {index, rejects, *(part_file(key) for key in keys), *(done_file(key) for key in keys)}
    there = [f"{place}/{file}" for place in (INDEX, REJECTS, IMAGES, DONE) for file in store.sizes(place)]
    check_lock()
    store.remove([file for file in there if file not in wanted and FILE_NAME.fullmatch(file.rpartition("/")[2])])


def _write_index(store: FileStore, plan: PackPlan, file: Path, told: Path, report: PackReport) -> None:
    """Write the rows of all parts sorted by path, and the rejected ones again in a table of their own."""
    parts = _Parts(store)
    report.packed = report.rejected = report.bytes = 0
    report.reasons.clear()
    first: list[str] = []
    options = {"compression": "zstd", "use_dictionary": ["split", "label", "part", "reason"]}
    with TableWriter(file, INDEX_TABLE, **options) as index, TableWriter(told, PACK_REJECTS) as rejects:
        for rows in _groups(plan.images):
            found = pa.Table.from_pylist(
                [parts.row(path, part) for path, part in zip(*rows, strict=True)], schema=INDEX_TABLE
            )
            first.append(rows[0][0])
            index.write_table(found, row_group_size=len(found))
            bad = found.filter(found["reason"].is_valid())
            columns = [bad[name] if name != "stage" else pa.array(["read"] * len(bad)) for name in PACK_REJECTS.names]
            rejects.write_table(pa.table(columns, schema=PACK_REJECTS))
            report.reasons.update(bad["reason"].to_pylist())
            report.rejected += len(bad)
            report.packed += len(found) - len(bad)
            report.bytes += sum(found["length"].to_pylist())
        index.add_key_value_metadata({FIRST_PATHS: json.dumps(first).encode()})


def _groups(plan: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Paths and parts of a plan, in batches."""
    for group in row_groups(plan, columns=["path", "part"]):
        for start in range(0, len(group), _INDEX_ROWS):
            rows = group.slice(start, _INDEX_ROWS)
            yield rows["path"].to_pylist(), rows["part"].to_pylist()


class _Parts:
    """The index rows of finished parts; each is read once, sorted by path.

    With thousands of parts open at a time, none keeps its file open, or its consumed rows.
    """

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._rows: dict[str, Iterator[dict[str, object]]] = {}

    def row(self, path: str, part: str) -> dict[str, object]:
        """The index row of an image in a part.

        Raises:
            Damaged: the row is missing.
        """
        if part not in self._rows:
            self._rows[part] = self._of(part)
        here = from_text(path)
        # Images that an earlier call could not read are no longer in this part.
        for row in self._rows[part]:
            if row["path"] == path:
                return row
            if from_text(str(row["path"])) > here:
                break
        raise Damaged(done_file(part), f"it has no row for {path}")

    def _of(self, part: str) -> Iterator[dict[str, object]]:
        number, count = 0, 1
        while number < count:
            rows, count = self._group(part, number)
            number += 1
            while rows:
                yield rows.pop()

    def _group(self, part: str, number: int) -> tuple[list[dict[str, object]], int]:
        """The rows of a group in reverse order, and the number of groups."""
        options = {"page_checksum_verification": True, "pre_buffer": True}
        name = done_file(part)
        with damage_found(name), self._store.open(name) as file, pq.ParquetFile(file, **options) as table:
            rows = table.read_row_group(number).select(INDEX_TABLE.names).to_pylist() if table.num_row_groups else []
            return rows[::-1], table.num_row_groups
