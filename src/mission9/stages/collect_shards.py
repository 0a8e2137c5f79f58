"""Committed parts -> the tables `features/` and `rejects/`, and the number of rows of each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mission9.concurrency.watchdog import progress
from mission9.crypto.pseudonyms import Pseudonyms
from mission9.errors import ConservationError
from mission9.output.shards import GROUP_ROWS, Shard, features_file, read_marker, read_rejects, write_table
from mission9.output.tables import TableWriter, read_group, read_table
from mission9.schema import FEATURES_TABLE, REJECTS_TABLE
from mission9.storage.local.files import link_or_copy, make_folder


@dataclass(frozen=True)
class Rows:
    """One row group of a features file, the unit that a task reads."""

    file: Path
    group: int

    def read(self, columns: list[str]) -> pa.Table:
        progress()
        return read_group(self.file, self.group, columns)


@dataclass
class Collected:
    """Rows of features by split, in the order of the table, with their numbers; rejects by split and reason.

    `committed` are the same rows in the committed files, whose paths are never pseudonyms.
    """

    committed: dict[str, list[Rows]] = field(default_factory=dict)
    features: dict[str, list[Rows]] = field(default_factory=dict)
    featured: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, Counter[str]] = field(default_factory=dict)


def collect_shards(
    parts: Sequence[Shard], folder: Path, *, features: Path, rejects: Path, pseudonyms: Pseudonyms | None = None
) -> Collected:
    """Make the two tables from the parts committed in `folder`.

    Files of features are linked under their public names; only pseudonyms require new files.

    Raises:
        ConservationError: a part is missing.
    """
    make_folder(features)
    make_folder(rejects)
    collected = Collected()
    with TableWriter(rejects / "part-00000.parquet", REJECTS_TABLE, compression="zstd") as writer:
        for part in parts:
            marker = read_marker(folder, part.key)
            if marker is None:
                raise ConservationError(f"part {part.number} of {part.images} images was not committed")
            if marker.features.rows:
                committed, public = features_file(folder, part.key), features / f"part-{part.number:05d}.parquet"
                _publish(committed, public, pseudonyms)
                groups = range(-(-marker.features.rows // GROUP_ROWS))
                for file, of in ((committed, collected.committed), (public, collected.features)):
                    of.setdefault(part.split, []).extend(Rows(file, group) for group in groups)
                collected.featured[part.split] += marker.features.rows
            if marker.rejects.rows:
                rows = read_rejects(folder, part.key)
                rows = pseudonyms.apply(rows) if pseudonyms else rows
                writer.write_table(rows)
                collected.rejected.setdefault(part.split, Counter()).update(rows["reason"].to_pylist())
    return collected


def _publish(committed: Path, public: Path, pseudonyms: Pseudonyms | None) -> None:
    if pseudonyms is None:
        link_or_copy(committed, public)
    else:
        write_table(public, pseudonyms.apply(read_table(committed)), FEATURES_TABLE)
