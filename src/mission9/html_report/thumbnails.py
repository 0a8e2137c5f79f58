"""Images -> small pictures on a few sheets, made of pixels only: no other content of a file gets in."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from mission9.concurrency.prefetch import LOCAL
from mission9.decoding.isolated import Decoded, decode_apart
from mission9.decoding.protocol import MAX_IMAGES, THUMBNAIL, DecoderSettings
from mission9.errors import ImageError, InputError
from mission9.models.preprocess import THUMBNAIL_SIDE, thumbnail_size
from mission9.sampling import evenly
from mission9.sources import open_source
from mission9.sources.base import Root

SIDE = THUMBNAIL_SIDE
ACROSS = 32  # thumbnails in a row of a sheet, which has as many rows

# The limit of all originals together, so that the report takes seconds; the smallest come first.
MAX_BYTES = 1_000_000_000
MAX_PIXELS = 1_000_000_000

# For a server: images that are requested first, and consecutive failures after which requests end.
_ASKED_FIRST, _MAX_FAILURES = 8, 16

# The limit of all sheets together in the file; the best quality that fits is used.
SHEET_BYTES = 3_200_000
_QUALITIES = (80, 65, 50, 35, 20, 5)


@dataclass(frozen=True)
class Thumbnails:
    """JPEG sheets of `ACROSS` by `ACROSS` thumbnails in order; `sizes` (n, 2) are their sizes, 0 for a missing one.

    `left_out` counts the images that would take too long, `gone` those whose file has changed or disappeared.
    """

    sheets: list[bytes]
    sizes: NDArray[np.uint8]
    left_out: int
    gone: int


def make_thumbnails(root: Root, images: pa.Table, max_pixels: int) -> Thumbnails:
    """Thumbnails of images below `root`, from the columns path, width, height, bytes and sha256.

    Raises:
        Mission9Error: a server or bucket is unreachable, or returns none of the first images requested.
    """
    chosen = _not_too_many(images)
    sizes = np.zeros((len(images), 2), np.uint8)
    reader = _Reader(root)
    reader.check(images.take(pa.array(chosen[evenly(len(chosen), _ASKED_FIRST)])).to_pylist())
    canvas = np.full((-(-len(images) // ACROSS) * SIDE, ACROSS * SIDE, 3), 255, np.uint8)
    runs = [chosen[start : start + MAX_IMAGES] for start in range(0, len(chosen), MAX_IMAGES)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        work = partial(_decoded, reader=reader, settings=DecoderSettings(THUMBNAIL, max_pixels))
        done = pool.map(work, (images.take(pa.array(run)).to_pylist() for run in runs))
        for run, outcomes in zip(runs, done, strict=True):
            for place, outcome in zip(run, outcomes, strict=True):
                if isinstance(outcome, Decoded):
                    sizes[place] = _put(canvas, place, outcome)
    there = int(sizes.any(1).sum())
    return Thumbnails(_sheets(canvas) if there else [], sizes, len(images) - len(chosen), len(chosen) - there)


def no_thumbnails(images: int) -> Thumbnails:
    """An empty result for a number of images."""
    return Thumbnails([], np.zeros((images, 2), np.uint8), 0, 0)


def _not_too_many(images: pa.Table) -> NDArray[np.int64]:
    """The indices of the images whose originals are within the limit together."""
    pixels = images["width"].to_numpy().astype(np.int64) * images["height"].to_numpy()
    order = np.argsort(pixels, kind="stable")
    fits = (pixels[order].cumsum() <= MAX_PIXELS) & (images["bytes"].to_numpy()[order].cumsum() <= MAX_BYTES)
    return np.sort(order[fits])


def _decoded(
    rows: Sequence[dict[str, Any]], *, reader: _Reader, settings: DecoderSettings
) -> list[Decoded | ImageError | None]:
    contents = reader.contents(rows)
    decoded = iter(decode_apart([content for content in contents if content], settings))
    return [next(decoded) if content else None for content in contents]


class _Reader:
    """Reads originals. From a server it first reads a few, and stops after many consecutive failures."""

    def __init__(self, root: Root) -> None:
        self._source = open_source(root)
        self._is_here = self._source.ahead == LOCAL
        self._failed_in_a_row = 0

    def check(self, rows: Sequence[dict[str, Any]]) -> None:
        """Try some of the images, if they are remote.

        Raises:
            InputError: none of them can be read.
        """
        if not self._is_here and rows and not any(self.contents(rows)):
            raise InputError(f"none of the first {len(rows)} images requested can be read unchanged; check --input")

    def contents(self, rows: Sequence[dict[str, Any]]) -> list[bytes]:
        """The bytes of images; those of a bucket are requested concurrently."""
        if self._is_here:
            return [self._content(row) for row in rows]
        with ThreadPoolExecutor(min(self._source.ahead.threads, len(rows))) as pool:
            return list(pool.map(self._content, rows))

    def _content(self, row: dict[str, Any]) -> bytes:
        """The image's bytes, if they are still those of the features."""
        if self._failed_in_a_row >= _MAX_FAILURES and not self._is_here:
            return b""
        try:
            data = self._source.read(row["path"], max_bytes=row["bytes"])
        except ImageError as error:
            self._failed_in_a_row += error.reason == "unreadable"  # already after retries
            return b""
        self._failed_in_a_row = 0
        return data if hashlib.sha256(data).hexdigest() == row["sha256"] else b""


def _put(canvas: NDArray[np.uint8], place: int, decoded: Decoded) -> tuple[int, int]:
    """Draw a thumbnail in its cell; return its width and height."""
    top, left = place // ACROSS * SIDE, place % ACROSS * SIDE
    width, height = thumbnail_size(decoded.width, decoded.height)
    canvas[top : top + height, left : left + width] = decoded.pixels[:height, :width, :3]
    return width, height


def _sheets(canvas: NDArray[np.uint8]) -> list[bytes]:
    parts = [Image.fromarray(canvas[top : top + ACROSS * SIDE]) for top in range(0, len(canvas), ACROSS * SIDE)]
    for quality in _QUALITIES:
        sheets = [_jpeg(part, quality) for part in parts]
        if sum(map(len, sheets)) <= SHEET_BYTES:
            break
    return sheets


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
