"""Scores of one split -> Parquet by label and one CSV."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from mission9.errors import ImageError, OutputError
from mission9.output.csv_scores import write_csv
from mission9.output.tables import TableWriter
from mission9.schema import projected
from mission9.storage.local.files import files_in, make_folder, retry_io
from mission9.storage.local.names import label_folder

# Labels with an open file. Rows come in order of path, so one is enough unless a label has several separate folders.
# A label that recurs after this many others begins a second file.
_OPEN_LABELS = 100


def save_results(
    chunks: Iterable[pa.Table], parquet: Path, csv: Path | None, *, components: int, plain_csv: bool = False
) -> None:
    """Write the rows (path, split, label, pca) of one split as `parquet`/label=.../ and into the file `csv`, if any.

    In the CSV, an apostrophe keeps spreadsheets from evaluating texts (`output.csv_text`), unless `plain_csv`.
    """
    make_folder(parquet)
    with LabelWriter(parquet, components) as labels, ExitStack() as opened:
        lines = opened.enter_context(write_csv(csv, components, plain=plain_csv)) if csv else None
        for chunk in chunks:
            for batch in chunk.to_batches():
                labels.write(batch)
                if lines is not None:
                    lines.write(batch)


class LabelWriter:
    """Writer of a folder for each label; only the folder's name holds the label, as in Spark's partitioned tables."""

    def __init__(self, folder: Path, components: int) -> None:
        self._folder = folder
        self._schema = projected(components).remove(projected(components).get_field_index("label"))
        self._open: dict[str, TableWriter] = {}
        self._folders: dict[str, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._open.values():
            writer.close()

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows of path, split, label and pca."""
        for label in pc.unique(rows["label"]).to_pylist():
            chosen = rows.filter(pc.equal(rows["label"], label))
            self._writer(label).write_batch(chosen.select(self._schema.names))

    def _writer(self, label: str) -> TableWriter:
        if label not in self._open:
            if len(self._open) == _OPEN_LABELS:
                self._open.pop(next(iter(self._open))).close()
            if label not in self._folders:
                self._folders[label] = self._folder_of(label)
            folder = self._folders[label]
            part = len(files_in(folder))
            self._open[label] = TableWriter(folder / f"part-{part:05d}.parquet", self._schema, compression="zstd")
        return self._open[label]

    def _folder_of(self, label: str) -> Path:
        """Create the folder of a new label, distinct from that of a label which the file system considers equal.

        Raises:
            OutputError: no distinct folder is possible.
        """
        for with_letters_escaped in (False, True):
            try:
                folder = self._folder / label_folder(label, with_letters_escaped=with_letters_escaped)
            except ImageError:  # the escaped name is too long
                break
            if not retry_io(folder.exists):
                make_folder(folder)
                return folder
        raise OutputError(
            f"the file system of {self._folder} ignores case or accents, so the label {label} and another share a "
            "folder: rename one, or give another --output"
        )
