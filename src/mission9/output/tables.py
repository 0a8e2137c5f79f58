"""mission9's Parquet files, written and read with retries."""

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

# Reading a damaged file raises one of these.
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)

_Version = tuple[Path, int, int, int]  # a file's path, inode, modification time and size

# A plan has a row group for each part, and each task reads one: parsing the footer each time is quadratic.
_footers: dict[_Version, pq.FileMetaData] = {}
_MAX_FOOTERS = 4


class TableWriter(pq.ParquetWriter):  # type: ignore[misc]
    """A Parquet writer that encrypts if `crypto.parquet.encrypted_by` is active.

    Pages carry checksums, which readers may verify.
    """

    def __init__(self, path: Path, schema: pa.Schema, **options: Any) -> None:
        self._file = open_to_write(path)
        super().__init__(self._file, schema, write_page_checksum=True, **options, **for_writing())

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.is_open = False  # or garbage collection would close it again, and fail again
            self._file.close()


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a file; each read is retried after a transient error."""
    with naming(path), open_to_read(path) as file:
        options |= for_reading(file.peek(4), path)
        with pq.ParquetFile(file, **options) as parquet:
            yield parquet


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a whole file."""
    with opened(path) as parquet:
        return parquet.read(columns=columns)


def read_group(path: Path, number: int, columns: list[str] | None = None) -> pa.Table:
    """Read one row group; the footer is cached within the process."""
    with naming(path), open_to_read(path) as file:
        options = for_reading(file.peek(4), path)
        facts = os.fstat(file.fileno())
        version = (path, facts.st_ino, facts.st_mtime_ns, facts.st_size)
        # The footer of an encrypted file is bound to its decryption properties.
        with pq.ParquetFile(file, **(options or {"metadata": _footers.get(version)})) as parquet:
            if not options and version not in _footers:
                _keep(version, parquet.metadata)
            return parquet.read_row_group(number, columns=columns)


def _keep(version: _Version, footer: pq.FileMetaData) -> None:
    while len(_footers) >= _MAX_FOOTERS:
        _footers.pop(next(iter(_footers), version), None)
    _footers[version] = footer


def row_groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a file, in order; a damaged page raises an error."""
    with opened(path, page_checksum_verification=True) as parquet:
        for number in range(parquet.num_row_groups):
            yield parquet.read_row_group(number, columns=columns)
