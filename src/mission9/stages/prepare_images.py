"""Rows -> the input pixels of the network, read ahead on a worker, or the reason of a rejection."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mission9 import devices
from mission9.concurrency.prefetch import AHEAD_IMAGES, LOCAL, PrefetchLimits, prefetch_map
from mission9.decoding.isolated import Decoded, decode_apart
from mission9.decoding.worker import MAX_IMAGES, DecoderSettings
from mission9.errors import ImageError, Reason
from mission9.models.extraction import Extraction
from mission9.schema import SPLITS
from mission9.sources import open_source
from mission9.sources.base import Root
from mission9.storage.local.names import label_folder

# The most bytes of images decoded in one call, not counting the last image.
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


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image before inference: first its bytes, then its pixels; or its rejection, in the stage `stage`."""

    row: ImageRow
    size: int
    data: bytes = b""
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    pixels: Pixels | None = None
    stage: str | None = None
    reason: Reason | None = None
    message: str | None = None
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)


def prepare_ahead(rows: Iterable[ImageRow], extraction: Extraction, *, batch_size: int) -> Iterator[PreparedImage]:
    """Each row prepared, in order, a bounded number of images ahead of the consumer.

    On a CPU, each core infers. Threads read ahead for it, but images are decoded on request, several in one call,
    because no other core is free to decode them earlier. For a GPU, all of its CPU cores prepare images two batches
    ahead: one batch is ready when the GPU becomes free, and one is in preparation.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    rows, reading = chain([first], rows), open_source(first.root).ahead
    read = partial(read_image, extraction=extraction)
    if extraction.engine.device == "cuda":
        ahead = PrefetchLimits(devices.decode_threads(), max(2 * batch_size, AHEAD_IMAGES))
        if reading != LOCAL:
            yield from prefetch_map(
                prefetch_map(rows, read, reading), partial(_decode_one, extraction=extraction), ahead
            )
        else:
            yield from prefetch_map(rows, partial(prepare, extraction=extraction), ahead)
    else:
        for run in _runs(prefetch_map(rows, read, reading)):
            yield from decode(run, extraction=extraction)


def prepare(row: ImageRow, *, extraction: Extraction) -> PreparedImage:
    """Read, decode and resize one image; any error becomes its rejection."""
    return _decode_one(read_image(row, extraction=extraction), extraction=extraction)


def _decode_one(image: PreparedImage, *, extraction: Extraction) -> PreparedImage:
    return decode([image], extraction=extraction)[0]


def read_image(row: ImageRow, *, extraction: Extraction) -> PreparedImage:
    """The image's bytes and their SHA-256 digest; any error becomes its rejection."""
    start, stage = time.thread_time(), "list"
    try:
        _check_keys(row)  # before the image is read
        stage = "read"
        data = row.content
        if data is None:
            data = open_source(row.root).read(row.path, max_bytes=extraction.max_bytes)
    except ImageError as error:
        return PreparedImage(row=row, size=row.size, stage=stage, reason=error.reason, message=str(error))
    digest = hashlib.sha256(data).hexdigest()
    seconds = {"read": time.thread_time() - start}
    return PreparedImage(row=row, size=len(data), data=data, sha256=digest, cpu_seconds=seconds)


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


def decode(images: Sequence[PreparedImage], *, extraction: Extraction) -> list[PreparedImage]:
    """The same images, with pixels in place of bytes; any error of an image becomes its rejection."""
    readable = [image.data for image in images if image.reason is None]
    settings = DecoderSettings(extraction.preprocess, extraction.max_pixels)
    found = iter(decode_apart(readable, settings))
    return [image if image.reason is not None else _with_pixels(image, next(found)) for image in images]


def _with_pixels(image: PreparedImage, found: Decoded | ImageError) -> PreparedImage:
    if isinstance(found, ImageError):
        return replace(image, data=b"", stage="decode", reason=found.reason, message=str(found))
    seconds = {**image.cpu_seconds, "decode": found.seconds}
    return replace(image, data=b"", width=found.width, height=found.height, pixels=found.pixels, cpu_seconds=seconds)


def _runs(images: Iterable[PreparedImage]) -> Iterator[list[PreparedImage]]:
    """The same images in lists, each to be decoded in one call."""
    run: list[PreparedImage] = []
    for image in images:
        run.append(image)
        if len(run) == MAX_IMAGES or sum(len(image.data) for image in run) > RUN_BYTES:
            yield run
            run = []
    if run:
        yield run
