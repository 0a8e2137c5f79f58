"""A part's number -> its images, read concurrently, in one Parquet file; runs on worker processes.

The column of images is neither compressed nor encoded, and has one page in each row group, so that an image is a byte
range of the file, fetched by one request. Every Parquet reader can read it as a table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from mission9.concurrency.prefetch import prefetch_map
from mission9.concurrency.watchdog import progress
from mission9.errors import ImageError
from mission9.output.tables import TableWriter, opened, read_group
from mission9.pack.plan_pack import Part, Row
from mission9.schema import LISTING
from mission9.sources import open_source
from mission9.sources.base import Root
from mission9.sources.pack.layout import DONE, INDEX_TABLE, PART, done_file, part_file
from mission9.storage.file_store import FileStore

# Images in a page: a worker that reads images in order fetches them together.
PAGE_BYTES = 1024 * 1024
PAGE_IMAGES = 1000

_LENGTH_BYTES = 4  # before each value, in Parquet's plain encoding
_NEVER = 2**30  # bytes, so that a page never ends in the middle of a row group

_TEXT = ["split", "label"]


class Read(NamedTuple):
    """A row with its image, or the reason for its reject."""

    row: Row
    data: bytes = b""
    sha256: str | None = None
    reason: str | None = None
    message: str | None = None


class _Job(NamedTuple):
    """A row to read, whose size limits the prefetching."""

    row: Row
    size: int


@dataclass(frozen=True, kw_only=True)
class WriteParts:
    """A task that makes the part of a number in `parts`, then its index rows, which mark it as finished.

    A part finished by an earlier try of the task is left unchanged.
    """

    root: Root
    todo: Path
    parts: tuple[Part, ...]
    store: FileStore
    max_bytes: int

    def __call__(self, number: int) -> bytes:
        part = self.parts[number]
        if Path(done_file(part.key)).name in self.store.sizes(DONE):
            return b""
        rows = _rows(read_group(self.todo, part.number))
        source = open_source(self.root)
        read = partial(_read, root=self.root, max_bytes=self.max_bytes)
        images = prefetch_map((_Job(row, row.bytes) for row in rows), read, source.ahead)
        count = write_part(self.store, part.key, images)
        if count != part.images:
            raise RuntimeError(f"part {part.key} has {part.images} images, but {count} rows")
        return b""


def write_part(store: FileStore, key: str, images: Iterable[Read]) -> int:
    """Write a part of images sorted by path, then its index rows; return their number. Without images, write nothing.

    Raises:
        StorageError: the place is not writable.
    """
    images = iter(images)
    first = next(images, None)
    if first is None:
        return 0
    with store.writing(part_file(key)) as file:
        written = _write(file, chain([first], images), key)
    with store.writing(done_file(key)) as file:
        _write_index(file, written.index)
    return len(written.index)


def _rows(table: pa.Table) -> Iterator[Row]:
    return map(Row, *(table[name].to_pylist() for name in LISTING.names))


def _read(job: _Job, *, root: Root, max_bytes: int) -> Read:
    try:
        data = open_source(root).read(job.row.path, max_bytes=max_bytes)
        return Read(job.row, data, hashlib.sha256(data).hexdigest())
    except ImageError as error:
        return Read(job.row, reason=error.reason, message=str(error))
    finally:
        progress()


@dataclass
class _Written:
    """The index rows of a part, by page."""

    index: list[dict[str, Any]] = field(default_factory=list)
    pages: list[list[dict[str, Any]]] = field(default_factory=list)


def _write(file: Path, images: Iterable[Read], key: str) -> _Written:
    written = _Written()
    options = {
        "compression": {name: "none" if name == "bytes" else "zstd" for name in PART.names},
        "use_dictionary": _TEXT,
        "column_encoding": {"bytes": "PLAIN"},
        "write_statistics": [name for name in PART.names if name != "bytes"],
        "data_page_size": _NEVER,
    }
    with TableWriter(file, PART, **options) as writer:
        for page in _pages(images, written, key):
            writer.write_batch(_page(page), row_group_size=len(page))
    _find(file, written)
    return written


def _pages(images: Iterable[Read], written: _Written, key: str) -> Iterator[list[Read]]:
    """The images read, a page at a time; each image and each reject is recorded in order."""
    page: list[Read] = []
    size = 0
    for image in images:
        facts = {**image.row._asdict(), "part": key, "length": len(image.data)}
        facts |= {"sha256": image.sha256, "reason": image.reason, "message": image.message}
        written.index.append(facts)
        if image.reason is not None:
            continue
        if page and (size + len(image.data) > PAGE_BYTES or len(page) == PAGE_IMAGES):
            yield page
            page, size = [], 0
        if not page:
            written.pages.append([])
        written.pages[-1].append(facts)
        page.append(image)
        size += len(image.data)
    if page:
        yield page


def _page(images: list[Read]) -> pa.RecordBatch:
    rows = [
        (
            image.row.path,
            image.row.split,
            image.row.label,
            image.data,
            image.sha256,
            len(image.data),
            image.row.modified,
        )
        for image in images
    ]
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(column, kind.type) for column, kind in zip(columns, PART, strict=True)], PART)


def _find(file: Path, written: _Written) -> None:
    """Record the position of each image in the file, and check it.

    Raises:
        RuntimeError: an image is not at its position, as after a change in the Parquet writer.
    """
    place = PART.get_field_index("bytes")
    with opened(file) as parquet, file.open("rb") as content:
        metadata = parquet.metadata
        if metadata.num_row_groups != len(written.pages):
            raise RuntimeError(f"{metadata.num_row_groups} row groups were written of {len(written.pages)} pages")
        for number, page in enumerate(written.pages):
            column = metadata.row_group(number).column(place)
            length = sum(_LENGTH_BYTES + facts["length"] for facts in page)
            at = start = column.data_page_offset + column.total_compressed_size - length
            for facts in page:
                facts |= {"at": at + _LENGTH_BYTES, "page": start, "page_bytes": length}
                at += _LENGTH_BYTES + facts["length"]
            for facts in (page[0], page[-1]):
                content.seek(facts["at"])
                if hashlib.sha256(content.read(facts["length"])).hexdigest() != facts["sha256"]:
                    raise RuntimeError(f"{facts['path']} is not where it should be in a part")


def _write_index(file: Path, index: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(index, schema=INDEX_TABLE)
    with TableWriter(file, INDEX_TABLE, compression="zstd") as writer:
        writer.write_table(table, row_group_size=2000)
