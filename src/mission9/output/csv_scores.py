"""The CSV of a split's scores: its place, its writer and its reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from mission9.output.csv_text import guarded
from mission9.output.layout import csv_folder
from mission9.schema import vectors
from mission9.storage.local.files import make_folder, open_to_read, open_to_write

TEXTS = {"path": pa.string(), "label": pa.string()}


def csv_file(split: str) -> str:
    """The path of a split's CSV below the output."""
    return f"{csv_folder(split)}/part-00000.csv"


class CsvWriter:
    """Writer of rows of path, label and scores; an apostrophe guards texts against spreadsheets, unless `plain`."""

    def __init__(self, writer: pa.csv.CSVWriter, schema: pa.Schema, *, plain: bool) -> None:
        self._writer, self._schema, self._plain = writer, schema, plain

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows of path, label and pca, a list of float32."""
        texts = [rows[name] if self._plain else guarded(rows[name]) for name in TEXTS]
        scores = np.asfortranarray(vectors(rows["pca"]))
        columns = [pa.array(scores[:, n]) for n in range(scores.shape[1])]
        self._writer.write_batch(pa.record_batch([*texts, *columns], schema=self._schema))


@contextmanager
def write_csv(file: Path, components: int, *, plain: bool) -> Iterator[CsvWriter]:
    """Open a new CSV of `components` scores a row."""
    make_folder(file.parent)
    schema = pa.schema(TEXTS | dict.fromkeys(_columns(components), pa.float32()))
    with open_to_write(file) as out, pa.csv.CSVWriter(out, schema) as writer:
        yield CsvWriter(writer, schema, plain=plain)


@contextmanager
def read_csv(
    file: Path, types: Mapping[str, pa.DataType], *, only: Sequence[str] = ()
) -> Iterator[pa.csv.CSVStreamingReader]:
    """Open a CSV for the batches of its columns, or of those in `only`; texts are as stored.

    Raises:
        pa.ArrowException: it is not a CSV.
        KeyError: a column of `only` is missing.
    """
    options = pa.csv.ConvertOptions(column_types=types, include_columns=only, strings_can_be_null=False)
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    with (
        open_to_read(file) as source,
        pa.csv.open_csv(source, parse_options=parsing, convert_options=options) as reader,
    ):
        yield reader


def csv_columns(components: int) -> dict[str, pa.DataType]:
    """All columns of a CSV, with the types to read them as."""
    return TEXTS | dict.fromkeys(_columns(components), pa.float64())


def _columns(components: int) -> list[str]:
    return [f"pc_{n + 1}" for n in range(components)]
