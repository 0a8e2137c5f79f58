"""Scores of one split -> Parquet by label and one CSV."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mission9.errors import ImageError, OutputError
from mission9.output.csv_text import guarded
from mission9.output.tables import TableWriter
from mission9.schema import projected, vectors
from mission9.storage.local.files import files_in, make_folder, open_to_write, retry_io
from mission9.storage.local.names import label_folder

# Labels with an open file. Rows come in order of path, so one is enough unless a label has several separate folders.
# A label that recurs after this many others begins a second file.
_OPEN_LABELS = 100


def save_results(
    chunks: Iterable[pa.Table], parquet: Path, csv: Path | None, *, components: int, plain_csv: bool = False
) -> None:
    """Write the rows (path, split, label, pca) of one split as `parquet`/label=.../ and one file in `csv`, if any.

    In the CSV, an apostrophe keeps spreadsheets from evaluating texts (`output.csv_text`), unless `plain_csv`.
    """
    make_folder(parquet)
    schema = pa.schema([("path", pa.string()), ("label", pa.string()), *_score_fields(components)])
    with LabelWriter(parquet, components) as labels, ExitStack() as opened:
        lines = _csv_writer(csv, schema, opened) if csv else None
        for chunk in chunks:
            for batch in chunk.to_batches():
                labels.write(batch)
                if lines is not None:
                    lines.write_batch(_csv_batch(batch, schema, plain=plain_csv))


def _csv_writer(csv: Path, schema: pa.Schema, opened: ExitStack) -> pa.csv.CSVWriter:
    make_folder(csv)
    file = opened.enter_context(open_to_write(csv / "part-00000.csv"))
    return opened.enter_context(pa.csv.CSVWriter(file, schema))


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


def _score_fields(components: int) -> list[pa.Field]:
    return [pa.field(f"pc_{n + 1}", pa.float32()) for n in range(components)]


def _csv_batch(rows: pa.RecordBatch, schema: pa.Schema, *, plain: bool) -> pa.RecordBatch:
    texts = [rows[name] if plain else guarded(rows[name]) for name in ("path", "label")]
    scores = np.asfortranarray(vectors(rows["pca"]))
    columns = [pa.array(scores[:, n]) for n in range(scores.shape[1])]
    return pa.record_batch([*texts, *columns], schema=schema)
