"""Parquet files of our own, written and read patiently."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mission9.files import naming, open_to_write, patiently


class TableWriter(pq.ParquetWriter):  # type: ignore[misc]
    """Writes a Parquet file; its pages carry checksums, which readers hold them against if they care."""

    def __init__(self, path: Path, schema: pa.Schema, **options: Any) -> None:
        self._file = open_to_write(path)
        super().__init__(self._file, schema, write_page_checksum=True, **options)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.is_open = False  # or it would be closed again, and fail again, when it is collected as garbage
            self._file.close()


def read_table(path: Path, **options: Any) -> pa.Table:
    """A whole file."""
    with naming(path):
        return patiently(partial(pq.read_table, path, **options))


def read_group(path: Path, number: int, columns: list[str] | None = None) -> pa.Table:
    """One row group of a file."""

    def read() -> pa.Table:
        with pq.ParquetFile(path) as parquet:
            return parquet.read_row_group(number, columns=columns)

    with naming(path):
        return patiently(read)


def row_groups(path: Path) -> Iterator[pa.Table]:
    """The row groups of a file, one after the other; damage in a page is an error."""
    with naming(path), patiently(lambda: pq.ParquetFile(path, page_checksum_verification=True)) as parquet:
        for number in range(parquet.num_row_groups):
            yield patiently(partial(parquet.read_row_group, number))
