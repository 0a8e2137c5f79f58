"""Rows -> outcomes, on a worker: the features of each image, or the reason of its rejection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mission9.decoding.pixels import check_pixels
from mission9.decoding.worker import MAX_IMAGES
from mission9.models.engines import make_engine
from mission9.models.engines.base import Engine
from mission9.models.extraction import Extraction
from mission9.schema import FEATURES, OUTCOME
from mission9.stages.prepare_images import ImageRow, PreparedImage, decode, prepare_ahead


def get_ready(extraction: Extraction) -> None:
    """Prepare this process for images: create its engine, of one thread, and its decoder process."""
    _engine(extraction, threads=1)
    decode([], extraction=extraction)


def infer_features(
    rows: Iterable[ImageRow], extraction: Extraction, *, threads: int = 1, cpu_seconds: dict[str, float] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of `schema.OUTCOME`, a row for each row given, in the same order, inferred on `threads` threads.

    The CPU seconds of reading and decoding are added to `cpu_seconds`.

    Raises:
        SetupError: this machine's Pillow gives other pixels than the driver's.
    """
    check_pixels(extraction.pixels)
    engine = _engine(extraction, threads)
    images = prepare_ahead(rows, extraction, batch_size=engine.batch_size)
    # A GPU waits for at most one batch of images.
    fewest = 1 if extraction.engine.device == "cuda" else MAX_IMAGES
    while batch := list(islice(images, max(engine.batch_size, fewest))):
        pixels = [image.pixels for image in batch if image.pixels is not None]
        features = engine(pixels) if pixels else np.empty((0, FEATURES), np.float32)
        if len(features) != len(pixels):
            raise RuntimeError(f"the engine gave {len(features)} vectors for {len(pixels)} images")
        if cpu_seconds is not None:
            add(cpu_seconds, *(image.cpu_seconds for image in batch))
        yield _outcomes(batch, features)


def _engine(extraction: Extraction, threads: int) -> Engine:
    return make_engine(extraction.engine, extraction.weights, threads=threads, int8=extraction.int8)


def add(total: dict[str, float], *parts: Mapping[str, float]) -> None:
    """Add several measurements of seconds, by activity, to a total."""
    for part in parts:
        for what, seconds in part.items():
            total[what] = total.get(what, 0.0) + seconds


def _outcomes(batch: list[PreparedImage], features: NDArray[np.float32]) -> pa.RecordBatch:
    vectors = iter(features)
    rows = [_outcome(image, None if image.pixels is None else next(vectors)) for image in batch]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in OUTCOME]
    return pa.record_batch(columns, schema=OUTCOME)


def _outcome(image: PreparedImage, vector: NDArray[np.float32] | None) -> dict[str, Any]:
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
        "bytes": image.size,
        "sha256": image.sha256,
        "features": vector,
        "stage": stage,
        "reason": reason,
        "message": message,
    }
