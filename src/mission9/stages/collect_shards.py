"""Committed shards -> the tables `features/` and `rejects/`, and how many rows each split has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from mission9.errors import ConservationError
from mission9.files import link_or_copy
from mission9.schema import REJECTS_TABLE
from mission9.stages.extract_shard import features_file, read_marker, rejects_file
from mission9.stages.plan_shards import Shard


@dataclass
class Collected:
    """Features files of every split, in order of path, with their rows; and rejects by split and reason."""

    features: dict[str, list[Path]] = field(default_factory=dict)
    featured: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, Counter[str]] = field(default_factory=dict)


def pending(shards: Sequence[Shard], folder: Path) -> tuple[Shard, ...]:
    """The shards that are not committed in `folder`."""
    return tuple(shard for shard in shards if read_marker(folder, shard.key) is None)


def collect_shards(shards: Sequence[Shard], folder: Path, *, features: Path, rejects: Path) -> Collected:
    """Make the two tables of the shards committed in `folder`.

    Features are not written again, only linked under the names that readers see.

    Raises:
        ConservationError: a shard is missing.
    """
    features.mkdir()
    rejects.mkdir()
    collected = Collected()
    with pq.ParquetWriter(rejects / "part-00000.parquet", REJECTS_TABLE, compression="zstd") as writer:
        for shard in shards:
            marker = read_marker(folder, shard.key)
            if marker is None:
                raise ConservationError(f"shard {shard.number} of {shard.images} images was not committed")
            if marker.features.rows:
                table = features / f"part-{shard.number:05d}-{shard.key}.parquet"
                link_or_copy(features_file(folder, shard.key), table)
                collected.features.setdefault(shard.split, []).append(table)
                collected.featured[shard.split] += marker.features.rows
            if marker.rejects.rows:
                rows = pq.read_table(rejects_file(folder, shard.key), schema=REJECTS_TABLE)
                writer.write_table(rows)
                collected.rejected.setdefault(shard.split, Counter()).update(rows["reason"].to_pylist())
    return collected


def sweep(shards: Sequence[Shard], folder: Path) -> None:
    """Delete what is in `folder` and not of `shards`: tries that were killed, and images that are no more."""
    keys = {shard.key for shard in shards}
    for file in folder.iterdir():
        if file.name.split(".")[0] not in keys:
            file.unlink()
