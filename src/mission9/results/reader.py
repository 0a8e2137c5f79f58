"""Read a finished run: its report, its model, and the scores of its images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mission9.errors import OutputError
from mission9.output.layout import FEATURES_FOLDER, MODEL_FOLDER, REJECTS_FOLDER, scores_folder
from mission9.output.local import Output
from mission9.output.open import output_at
from mission9.output.run_report import Report, report_of
from mission9.output.tables import read_table, row_groups
from mission9.pca import PCAModel
from mission9.schema import vectors
from mission9.storage.local.files import files_below, files_in
from mission9.storage.local.names import label_of_folder

T = TypeVar("T")

_TRIES = 5


@dataclass(frozen=True)
class Scores:
    """Images of one split: n paths, n labels, and their (n, k) float32 scores, in order of path."""

    paths: NDArray[np.object_]
    labels: NDArray[np.object_]
    pca: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Scores:
        """The scores of some rows."""
        return Scores(self.paths[rows], self.labels[rows], self.pca[rows])


@dataclass(frozen=True)
class Results:
    """An output folder with a complete result, and its report."""

    root: Path
    report: Report

    @staticmethod
    def of(root: str | Path) -> Results:
        """The results in a folder, or at s3://bucket/prefix; then the `root` of the object is a local copy.

        Raises:
            OutputError: there are none, or a run is writing them at this moment.
        """
        output = Output(output_at(root).result())
        return Results(output.root, report_of(output.last_report(), root))

    @property
    def is_current(self) -> bool:
        """True if this is still the result in the folder, so that all parts read so far belong to one run."""
        return _run_id(Output(self.root)) == self.report.run_id

    @property
    def splits(self) -> list[str]:
        """The splits with scores."""
        return [split for split, counts in self.report.splits.items() if counts.featured]

    def scores(self, split: str) -> Scores:
        """The scores of a split, all in memory.

        Raises:
            OutputError: the table is missing or damaged.
        """
        table = pa.Table.from_batches(self.score_batches(split, ["path", "label", "pca"]))
        paths = table["path"].to_numpy()
        order = np.argsort(np.array([path.encode() for path in paths]))
        return Scores(paths[order], table["label"].to_numpy()[order], vectors(table["pca"])[order])

    def score_batches(self, split: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the scores of a split, in batches, each of one label.

        Raises:
            OutputError: the table is missing or damaged.
        """
        folder = self.root / scores_folder(split)
        with _readable(folder):
            for file in sorted(files_below(folder)):
                label = pa.scalar(label_of_folder(file.parent.name), pa.string())
                for group in row_groups(file, [name for name in columns if name != "label"]):
                    rows = group.append_column("label", pa.repeat(label, len(group)))
                    yield from rows.select(columns).to_batches()

    def images(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the features table, in batches, in order of path.

        Raises:
            OutputError: the table is missing or damaged.
        """
        folder = self.root / FEATURES_FOLDER
        with _readable(folder):
            for file in sorted(files_in(folder)):
                for group in row_groups(file, list(columns)):
                    yield from group.to_batches()

    def rejects(self) -> pa.Table:
        """The rejected images."""
        return pa.concat_tables(map(read_table, sorted(files_in(self.root / REJECTS_FOLDER))))

    def model(self) -> PCAModel:
        """The PCA model.

        Raises:
            ModelError: it is missing or damaged.
        """
        return PCAModel.load(self.root / MODEL_FOLDER)


def of_one_result(root: str | Path, read: Callable[[Results], T]) -> T:
    """The value of `read` for the result in `root`, with all of its parts from one run.

    If another result replaces it during the call, `read` is called again, for that one.

    Raises:
        OutputError: there is no result, or results replace each other again and again.
    """
    output = Output(output_at(root).result())
    return of_one_run(output, lambda: read(Results(output.root, report_of(output.last_report(), root))))


def of_one_model(place: str | Path, read: Callable[[Path], T]) -> T:
    """The value of `read` for the folder of a PCA model; in an output, all of its files are from one run.

    Raises:
        ModelError: there is no model.
        OutputError: results replace each other again and again.
    """
    folder = output_at(place).model()
    output = Output(folder.absolute().parent)
    if not output.state.is_dir():  # such as a copy of a model in a bucket
        return read(folder)
    return of_one_run(output, lambda: read(folder))


def of_one_run(output: Output, read: Callable[[], T]) -> T:
    """The value of `read` for an output folder; if another result replaced the files, `read` is called again.

    Raises:
        OutputError: results replace each other again and again.
    """
    for _ in range(_TRIES):
        output.wait_until_published()
        run_id = _run_id(output)
        try:
            found = read()
        except Exception:  # any kind: the files may be a mixture of two results
            if _run_id(output) == run_id and not output.is_publishing:
                raise
        else:
            if _run_id(output) == run_id:
                return found
    raise OutputError(f"one result after the other takes its place in {output.root}: give the command again")


def _run_id(output: Output) -> str:
    return str(output.last_report().get("run_id", ""))


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{folder} cannot be read, mission9 verify says more: {error}") from error
