"""Parquet files of our own, written and read patiently."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mission9.crypto.parquet import for_reading, for_writing
from mission9.storage.local.files import naming, open_to_read, open_to_write

# Reading a damaged file ends in one of these.
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)

_Version = tuple[Path, int, int, int]  # of a file: its path, inode, time of change and size

# A plan has a row group for each shard, and each shard's task reads one: with the footer each time that were quadratic.
_footers: dict[_Version, pq.FileMetaData] = {}
_MAX_FOOTERS = 4


class TableWriter(pq.ParquetWriter):  # type: ignore[misc]
    """Writes a Parquet file, encrypted where `encryption.encrypted_by` says so.

    Its pages carry checksums, which readers hold them against if they care.
    """

    def __init__(self, path: Path, schema: pa.Schema, **options: Any) -> None:
        self._file = open_to_write(path)
        super().__init__(self._file, schema, write_page_checksum=True, **options, **for_writing())

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.is_open = False  # or it would be closed again, and fail again, when it is collected as garbage
            self._file.close()


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[pq.ParquetFile]:
    """A file to read from; each single read is tried again where it fails for a passing reason."""
    with naming(path), open_to_read(path) as file:
        options |= for_reading(file.peek(4), path)
        with pq.ParquetFile(file, **options) as parquet:
            yield parquet


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole file."""
    with opened(path) as parquet:
        return parquet.read(columns=columns)


def read_group(path: Path, number: int, columns: list[str] | None = None) -> pa.Table:
    """One row group of a file, whose footer a process that reads several reads once."""
    with naming(path), open_to_read(path) as file:
        options = for_reading(file.peek(4), path)
        facts = os.fstat(file.fileno())
        version = (path, facts.st_ino, facts.st_mtime_ns, facts.st_size)
        # The footer of an encrypted file is bound to what decrypts it.
        with pq.ParquetFile(file, **(options or {"metadata": _footers.get(version)})) as parquet:
            if not options and version not in _footers:
                _keep(version, parquet.metadata)
            return parquet.read_row_group(number, columns=columns)


def _keep(version: _Version, footer: pq.FileMetaData) -> None:
    while len(_footers) >= _MAX_FOOTERS:
        _footers.pop(next(iter(_footers), version), None)
    _footers[version] = footer


def row_groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a file, one after the other; damage in a page is an error."""
    with opened(path, page_checksum_verification=True) as parquet:
        for number in range(parquet.num_row_groups):
            yield parquet.read_row_group(number, columns=columns)
