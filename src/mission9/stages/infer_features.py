"""Rows -> outcomes, on a worker: each image's features, or the reason why there are none."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mission9 import devices
from mission9.engines import EngineSpec, make_engine
from mission9.engines.int8 import Int8Network
from mission9.errors import ImageError, Reason
from mission9.mobilenet_v2 import FEATURES
from mission9.names import label_folder, to_path
from mission9.preprocess import Preprocess, to_input
from mission9.schema import OUTCOME
from mission9.stages.decode_image import one_at_a_time, open_image, to_picture
from mission9.stages.read_bytes import read_bytes
from mission9.weights import Weights

# Raised when the code changes so that the same image gives other features.
FEATURES_VERSION = 2

# Images read and decoded while others are inferred: bounded in number, and in bytes on disk for each thread that reads.
AHEAD_IMAGES = 64
AHEAD_BYTES = 32 * 1024 * 1024
READERS = 2

# Images of a shard: a few seconds of work for a core, or for a GPU and the cores that decode for it.
SHARD_IMAGES = {"cpu": 256, "cuda": 8192}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Everything a worker must know to turn images into features; small, but for the weights' 9 MB.

    `int8` is the network in that precision, without which the weights themselves are the network.
    """

    engine: EngineSpec
    weights: Weights
    int8: Int8Network | None = None
    preprocess: Preprocess
    max_pixels: int
    max_bytes: int

    @property
    def shard_images(self) -> int:
        """How many images make a shard of a few seconds."""
        return SHARD_IMAGES[self.engine.device]

    @cached_property
    def fingerprint(self) -> str:
        """Names the features that this extraction gives; another fingerprint, another table."""
        facts = {
            "version": FEATURES_VERSION,
            "weights": self.weights.sha256,
            "preprocess": self.preprocess,
            "engine": self.engine.engine,
            "device": self.engine.device,
            "precision": self.engine.precision,
            "int8": self.int8.sha256 if self.int8 else None,
            # Other limits reject other images.
            "max_pixels": self.max_pixels,
            "max_bytes": self.max_bytes,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class ImageRow(NamedTuple):
    """One image to do; `content` holds its bytes where they were read already, else `root` says where it lies."""

    path: str
    split: str
    label: str
    size: int
    root: str = ""
    content: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image ready for the engine, or its rejection."""

    row: ImageRow
    bytes: int
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    pixels: Pixels | None = None
    stage: str | None = None
    reason: Reason | None = None
    message: str | None = None
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)


def infer_features(
    rows: Iterable[ImageRow], extraction: Extraction, *, threads: int = 1, cpu_seconds: dict[str, float] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of `schema.OUTCOME`, a row for each row given, in the same order.

    While a batch is inferred, on `threads` threads, the next images are read and decoded. What reading and decoding
    took of the CPU is added to `cpu_seconds`.
    """
    engine = make_engine(extraction.engine, extraction.weights, threads=threads, int8=extraction.int8)
    images = prepare_ahead(rows, extraction, batch_size=engine.batch_size)
    # A GPU waits for no more images than it takes at a time.
    fewest = 1 if extraction.engine.device == "cuda" else AHEAD_IMAGES
    while batch := list(islice(images, max(engine.batch_size, fewest))):
        pixels = [image.pixels for image in batch if image.pixels is not None]
        features = engine(np.stack(pixels)) if pixels else np.empty((0, FEATURES), np.float32)
        if len(features) != len(pixels):
            raise RuntimeError(f"the engine gave {len(features)} vectors for {len(pixels)} images")
        if cpu_seconds is not None:
            add(cpu_seconds, *(image.cpu_seconds for image in batch))
        yield _outcomes(batch, features)


def add(total: dict[str, float], *parts: Mapping[str, float]) -> None:
    """Add to a total what several have spent on each thing."""
    for part in parts:
        for what, seconds in part.items():
            total[what] = total.get(what, 0.0) + seconds


def prepare(row: ImageRow, *, extraction: Extraction) -> Prepared:
    """Read, decode and resize one image; whatever is wrong with it ends in the result."""
    stage, size, sha256 = "list", row.size, None
    start, read = time.thread_time(), 0.0
    try:
        label_folder(row.label)  # a label that no folder can carry is found out before the work
        stage = "read"
        data = row.content
        if data is None:
            data = read_bytes(to_path(row.root, row.path), max_bytes=extraction.max_bytes)
        size, sha256 = len(data), hashlib.sha256(data).hexdigest()
        stage, read = "decode", time.thread_time() - start
        (width, height), pixels = _decode(data, extraction)
    except ImageError as error:
        return Prepared(row=row, bytes=size, sha256=sha256, stage=stage, reason=error.reason, message=str(error))
    seconds = {"read": read, "decode": time.thread_time() - start - read}
    return Prepared(row=row, bytes=size, sha256=sha256, width=width, height=height, pixels=pixels, cpu_seconds=seconds)


def _decode(data: bytes, extraction: Extraction) -> tuple[tuple[int, int], Pixels]:
    """The size of an encoded image, upright, and the pixels that the network sees of it."""
    image = open_image(data, max_pixels=extraction.max_pixels)
    with one_at_a_time(image):
        picture = to_picture(image)
        return picture.size, to_input(picture, extraction.preprocess)


def prepare_ahead(rows: Iterable[ImageRow], extraction: Extraction, *, batch_size: int) -> Iterator[Prepared]:
    """Each row prepared, in order, a bounded way ahead of whoever takes the results.

    On a CPU each core infers, and two threads read for it while it does. A GPU is fed by all the cores that belong to
    it, two batches ahead: one to take as soon as it is free, one in the making.
    """
    work = partial(prepare, extraction=extraction)
    if extraction.engine.device == "cuda":
        return _ahead(rows, work, threads=devices.decode_threads(), images=max(2 * batch_size, AHEAD_IMAGES))
    return _ahead(rows, work, threads=READERS, images=AHEAD_IMAGES)


def _ahead(
    rows: Iterable[ImageRow], work: Callable[[ImageRow], Prepared], *, threads: int, images: int
) -> Iterator[Prepared]:
    """`map(work, rows)` in threads, at most so many images ahead."""
    waiting: deque[tuple[Future[Prepared], int]] = deque()
    size = 0
    with ThreadPoolExecutor(threads) as pool:
        for row in rows:
            waiting.append((pool.submit(work, row), row.size))
            size += row.size
            while len(waiting) > images or size > threads * AHEAD_BYTES:
                future, done = waiting.popleft()
                size -= done
                yield future.result()
        while waiting:
            yield waiting.popleft()[0].result()


def _outcomes(batch: list[Prepared], features: NDArray[np.float32]) -> pa.RecordBatch:
    vectors = iter(features)
    rows = [_outcome(image, None if image.pixels is None else next(vectors)) for image in batch]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in OUTCOME]
    return pa.record_batch(columns, schema=OUTCOME)


def _outcome(image: Prepared, vector: NDArray[np.float32] | None) -> dict[str, Any]:
    stage, reason, message = image.stage, image.reason, image.message
    if vector is not None and not np.isfinite(vector).all():
        stage, reason, message = "infer", "non_finite_features", "the network gave NaN or infinity"
        vector = None
    return {
        "path": image.row.path,
        "split": image.row.split,
        "label": image.row.label,
        "width": image.width,
        "height": image.height,
        "bytes": image.bytes,
        "sha256": image.sha256,
        "features": vector,
        "stage": stage,
        "reason": reason,
        "message": message,
    }
