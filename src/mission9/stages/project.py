"""Committed features -> scores in the PCA space; on the workers, a chunk for each run of consecutive files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mission9.files import private_name
from mission9.pca import PCAModel
from mission9.runner import Runner
from mission9.schema import projected, vectors

_CHUNKS_A_WORKER = 4


@dataclass(frozen=True)
class ProjectFiles:
    """Called with a number, writes the scores of that group of features files as one chunk into `folder`."""

    model: PCAModel
    groups: tuple[tuple[Path, ...], ...]
    folder: Path

    def __call__(self, number: int) -> bytes:
        chunk = _chunk(self.folder, number)
        partial = private_name(chunk)
        with pq.ParquetWriter(partial, projected(self.model.n_components_)) as writer:
            for file in self.groups[number]:
                for batch in pq.read_table(file, columns=["path", "split", "label", "features"]).to_batches():
                    writer.write_batch(project_batch(batch, self.model))
        partial.replace(chunk)
        return b""


def project(runner: Runner, model: PCAModel, files: Sequence[Path], folder: Path) -> Iterator[pa.Table]:
    """The scores of all rows in `files`, in their order, a chunk at a time; chunks lie in `folder` meanwhile."""
    folder.mkdir(parents=True)
    count = min(len(files), _CHUNKS_A_WORKER * runner.parallelism)
    bounds = [len(files) * n // count for n in range(count + 1)] if count else [0]
    groups = tuple(tuple(files[start:end]) for start, end in pairwise(bounds))
    runner.map(ProjectFiles(model.without_moments(), groups, folder), count)
    return (pq.read_table(_chunk(folder, n)) for n in range(count))


def project_batch(batch: pa.RecordBatch, model: PCAModel) -> pa.RecordBatch:
    """Rows with `features` -> the same rows with `pca` scores."""
    schema = projected(model.n_components_)
    scores = model.transform(vectors(batch["features"])).astype("float32")
    pca = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), type=schema.field("pca").type)
    return pa.record_batch([batch["path"], batch["split"], batch["label"], pca], schema=schema)


def _chunk(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.parquet"
