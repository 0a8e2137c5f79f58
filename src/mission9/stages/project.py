"""Committed features -> scores in the PCA space, on the workers: a chunk for each group of consecutive rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from mission9.output.tables import TableWriter, read_table
from mission9.pca import PCAModel
from mission9.runners.base import Runner
from mission9.schema import projected, vectors
from mission9.stages.collect_shards import Rows
from mission9.storage.local.files import atomic_path, make_folder

_CHUNKS_A_WORKER = 4

# Of a chunk, which this process reads as a whole: 32,768 images, whatever the number of all images.
_MAX_ROW_GROUPS = 16


@dataclass(frozen=True)
class ProjectRows:
    """Task that writes the scores of the rows in `groups[number]` as one chunk into `folder`."""

    model: PCAModel
    groups: tuple[tuple[Rows, ...], ...]
    folder: Path

    def __call__(self, number: int) -> bytes:
        schema = projected(self.model.n_components_)
        with atomic_path(_chunk(self.folder, number)) as file, TableWriter(file, schema) as writer:
            for rows in self.groups[number]:
                for batch in rows.read(["path", "split", "label", "features"]).to_batches():
                    writer.write_batch(project_batch(batch, self.model))
        return b""


def project(
    runner: Runner, model: PCAModel, features: Mapping[str, Sequence[Rows]], folder: Path
) -> dict[str, Iterator[pa.Table]]:
    """The scores of all rows of each split, in their order, in chunks, which are read from files in `folder`."""
    make_folder(folder)
    groups: list[tuple[Rows, ...]] = []
    numbers: dict[str, range] = {}
    for split, rows in features.items():
        chosen = _groups(rows, _CHUNKS_A_WORKER * runner.parallelism)
        numbers[split] = range(len(groups), len(groups) + len(chosen))
        groups += chosen
    runner.map(ProjectRows(model.without_moments(), tuple(groups), folder), len(groups))
    return {split: (read_table(_chunk(folder, n)) for n in chunks) for split, chunks in numbers.items()}


def project_batch(batch: pa.RecordBatch, model: PCAModel) -> pa.RecordBatch:
    """Rows with `features` -> the same rows with `pca` scores."""
    schema = projected(model.n_components_)
    scores = model.transform(vectors(batch["features"])).astype("float32")
    pca = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), type=schema.field("pca").type)
    return pa.record_batch([batch["path"], batch["split"], batch["label"], pca], schema=schema)


def _groups(rows: Sequence[Rows], most: int) -> list[tuple[Rows, ...]]:
    count = max(min(len(rows), most), -(-len(rows) // _MAX_ROW_GROUPS))
    bounds = [len(rows) * n // count for n in range(count + 1)]
    return [tuple(rows[start:end]) for start, end in pairwise(bounds)]


def _chunk(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.parquet"
