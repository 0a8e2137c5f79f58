"""Rows -> the input pixels of the network, prepared ahead on a worker, or the reason of a rejection."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mission9 import devices
from mission9.concurrency.prefetch import prefetch_map
from mission9.decoding.feeder import FeederSettings, Given, Prepared, Rejected, prepare_in_order, start_readers
from mission9.decoding.protocol import MAX_IMAGES, DecoderSettings
from mission9.errors import ImageError
from mission9.models.extraction import Extraction
from mission9.schema import SPLITS
from mission9.sources import open_source
from mission9.sources.base import Root
from mission9.storage.local.names import label_folder

# The most bytes of images prepared together, not counting the last image.
RUN_BYTES = 8 * 1024 * 1024

Pixels = NDArray[np.uint8]


class ImageRow(NamedTuple):
    """An image to extract: `content` is its bytes if they are already read, else `root` is the root of its path."""

    path: str
    split: str
    label: str
    size: int
    root: Root = Root("")
    content: bytes | None = None


class _Found(NamedTuple):
    """A row, and its bytes or the path of its file; or its rejection, with its stage."""

    row: ImageRow
    given: Given
    stage: str = ""
    error: ImageError | None = None
    seconds: float = 0.0

    @property
    def size(self) -> int:
        return len(self.given.data) if self.given.is_content else self.row.size


@dataclass(frozen=True)
class PreparedBatch:
    """Rows, and for each its place in the arrays of `Prepared`.

    `pixels` are those of the images that are not rejected, in order, (n, 224, 224, 4) uint8; they are valid until the
    next batch is requested. `rejected` has the rejections by their places. CPU seconds are of reading and decoding in
    other processes, and of reading in this one.
    """

    rows: list[ImageRow]
    images: Prepared
    pixels: Pixels
    rejected: dict[int, Rejected]
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    seconds_here: float = 0.0

    @property
    def good(self) -> int:
        """The number of images that are not rejected."""
        return len(self.rows) - len(self.rejected)


def prepare_ahead(rows: Iterable[ImageRow], extraction: Extraction) -> Iterator[PreparedBatch]:
    """Batches of the rows prepared, in order, a bounded number of images ahead of the consumer.

    Reader processes open local files; this process requests all other images, many at a time. On a CPU, one reader
    serves each core, which also infers. For a GPU, all of its CPU cores read and decode.
    """
    runs: list[list[_Found]] = []

    def batches() -> Iterator[list[Given]]:
        for run in _runs(_found(iter(rows), extraction)):
            runs.append(run)
            yield [found.given for found in run]

    for images in prepare_in_order(batches(), _settings(extraction)):
        yield _batch(runs.pop(0), images)


def start_processes(extraction: Extraction) -> None:
    """Start the processes of `prepare_ahead` before they are needed."""
    start_readers(_settings(extraction))


def _settings(extraction: Extraction) -> FeederSettings:
    decoder = DecoderSettings(extraction.preprocess, extraction.max_pixels, extraction.decode)
    readers = devices.decode_threads() if extraction.engine.device == "cuda" else 1
    return FeederSettings(decoder, extraction.max_bytes, readers)


def _found(rows: Iterator[ImageRow], extraction: Extraction) -> Iterator[_Found]:
    first = next(rows, None)
    if first is None:
        return
    find, rows, source = partial(_find, max_bytes=extraction.max_bytes), chain([first], rows), open_source(first.root)
    is_read_elsewhere = first.content is not None or source.file(first.path) is not None
    yield from map(find, rows) if is_read_elsewhere else prefetch_map(rows, find, source.ahead)


def _find(row: ImageRow, max_bytes: int) -> _Found:
    """The path of a row's local file, or its bytes; any error becomes its rejection."""
    stage = "list"
    try:
        _check_keys(row)  # before the image is read
        stage = "read"
        if row.content is not None:
            return _Found(row, Given(row.content, is_content=True))
        source = open_source(row.root)
        file = source.file(row.path)
        if file is not None:
            return _Found(row, Given(file, is_content=False))
        start = time.thread_time()
        data = source.read(row.path, max_bytes=max_bytes)
        return _Found(row, Given(data, is_content=True), seconds=time.thread_time() - start)
    except ImageError as error:
        return _Found(row, Given(b"", is_content=True), stage, error)


def _check_keys(row: ImageRow) -> None:
    """Refuse a row that no table can hold.

    Raises:
        ImageError: the label is empty or cannot be the name of a folder, or the split is unknown.
    """
    if not row.label:
        raise ImageError("unusable_label", "the image has no label")
    label_folder(row.label)
    if row.split not in SPLITS:
        raise ImageError("unusable_split", f"the split {row.split} is none of {', '.join(SPLITS)}")


def _runs(images: Iterable[_Found]) -> Iterator[list[_Found]]:
    """The same images in lists, each to be prepared together."""
    run: list[_Found] = []
    size = 0
    for image in images:
        run.append(image)
        size += image.size
        if len(run) == MAX_IMAGES or size > RUN_BYTES:
            yield run
            run, size = [], 0
    if run:
        yield run


def _batch(run: list[_Found], images: Prepared) -> PreparedBatch:
    unread = [Rejected(at, one.stage, one.error.reason, str(one.error)) for at, one in enumerate(run) if one.error]
    rejected = {one.at: one for one in (*images.rejected, *unread)}
    pixels = images.pixels
    if rejected:
        readable = np.flatnonzero(images.size >= 0)
        pixels = pixels[[at not in rejected for at in readable.tolist()]]
    if unread:  # they were prepared as images of no bytes
        sizes = images.size.copy()
        sizes[[one.at for one in unread]] = -1
        images = replace(images, size=sizes)
    here = sum(found.seconds for found in run)
    seconds = {"read": images.read_seconds + here, "decode": images.decode_seconds}
    return PreparedBatch([found.row for found in run], images, pixels, rejected, seconds, here)
