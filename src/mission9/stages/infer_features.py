"""Rows -> outcomes, on a worker: the features of each image, or the reason of its rejection."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mission9.decoding.feeder import Rejected
from mission9.decoding.pixels import check_pixels
from mission9.decoding.protocol import MAX_IMAGES
from mission9.models.engines import make_engine
from mission9.models.engines.base import Engine
from mission9.models.extraction import Extraction
from mission9.schema import FEATURES, OUTCOME
from mission9.stages.prepare_images import ImageRow, Pixels, PreparedBatch, prepare_ahead, start_processes

Vectors = NDArray[np.float32]


def get_ready(extraction: Extraction) -> None:
    """Prepare this process for images: create its engine, of one thread, and its reader and decoder processes."""
    start_processes(extraction)
    _engine(extraction, threads=1)


def infer_features(
    rows: Iterable[ImageRow], extraction: Extraction, *, threads: int = 1, cpu_seconds: dict[str, float] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of `schema.OUTCOME`, a row for each row given, in the same order, inferred on `threads` threads.

    The CPU seconds of reading, decoding and inference are added to `cpu_seconds`.

    Raises:
        SetupError: this machine's Pillow gives other pixels than the driver's.
        RuntimeError: a reader process fails, which is no image's fault.
    """
    check_pixels(extraction.pixels, extraction.decode)
    engine, spent = _engine(extraction, threads), {} if cpu_seconds is None else cpu_seconds
    start, here = time.process_time(), 0.0
    for batch, vectors in _inferred(prepare_ahead(rows, extraction), engine):
        add(spent, batch.cpu_seconds)
        here += batch.seconds_here
        yield _outcomes(batch, vectors)
    # Other processes decode the images, and read local files.
    add(spent, {"infer": time.process_time() - start - here})


def _inferred(batches: Iterable[PreparedBatch], engine: Engine) -> Iterator[tuple[PreparedBatch, Vectors]]:
    """Each batch and its vectors. A large batch of the engine is filled from several of them."""
    group: list[PreparedBatch] = []
    together, there = np.empty((0, 0, 0, 0), np.uint8), 0
    for batch in batches:
        group.append(batch)
        end = there + len(batch.pixels)
        is_full = end + MAX_IMAGES > engine.batch_size
        if len(group) == 1 and is_full:
            yield batch, _infer(engine, batch.pixels)
            group = []
            continue
        if not len(together):
            together = np.empty((engine.batch_size, *batch.pixels.shape[1:]), np.uint8)
        together[there:end], there = batch.pixels, end  # its memory is the next batch's
        if is_full:
            yield from _divided(group, _infer(engine, together[:there]))
            group, there = [], 0
    yield from _divided(group, _infer(engine, together[:there]))


def _divided(group: Sequence[PreparedBatch], vectors: Vectors) -> Iterator[tuple[PreparedBatch, Vectors]]:
    at = 0
    for batch in group:
        yield batch, vectors[at : at + batch.good]
        at += batch.good


def _infer(engine: Engine, pixels: Pixels) -> Vectors:
    if not len(pixels):
        return np.empty((0, FEATURES), np.float32)
    vectors = engine(pixels)
    if len(vectors) != len(pixels):
        raise RuntimeError(f"the engine gave {len(vectors)} vectors for {len(pixels)} images")
    return vectors


def _engine(extraction: Extraction, threads: int) -> Engine:
    return make_engine(extraction.engine, extraction.weights, threads=threads, int8=extraction.int8)


def add(total: dict[str, float], *parts: Mapping[str, float]) -> None:
    """Add several measurements of seconds, by activity, to a total."""
    for part in parts:
        for what, seconds in part.items():
            total[what] = total.get(what, 0.0) + seconds


def _outcomes(batch: PreparedBatch, vectors: Vectors) -> pa.RecordBatch:
    """The rows of a batch, built column by column."""
    rows, images = batch.rows, batch.images
    rejected = dict(batch.rejected)
    good = np.array([at not in rejected for at in range(len(rows))], bool)
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        for at in np.flatnonzero(good)[~finite].tolist():
            rejected[at] = Rejected(at, "infer", "non_finite_features", "the network gave NaN or infinity")
            good[at] = False
        vectors = vectors[finite]
    ends = np.concatenate([[0], np.cumsum(good)]) * FEATURES
    decoded, is_read = images.width > 0, images.size >= 0
    sizes = images.size if is_read.all() else np.where(is_read, images.size, [row.size for row in rows])
    digests = images.sha256.tobytes().hex()
    return pa.record_batch(
        [
            pa.array([row.path for row in rows], pa.string()),
            pa.array([row.split for row in rows], pa.string()),
            pa.array([row.label for row in rows], pa.string()),
            _masked(images.width, decoded),
            _masked(images.height, decoded),
            pa.array(sizes),
            _masked([digests[at : at + 64] for at in range(0, len(digests), 64)], is_read),
            pa.ListArray.from_arrays(
                pa.array(ends, pa.int32()), vectors.ravel(), mask=None if good.all() else pa.array(~good)
            ),
            *(_of_rejected(rejected, name, len(rows)) for name in ("stage", "reason", "message")),
        ],
        schema=OUTCOME,
    )


def _masked(values: Any, valid: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values) if valid.all() else pa.array(values, mask=~valid)


def _of_rejected(rejected: Mapping[int, Rejected], name: str, rows: int) -> pa.Array:
    if not rejected:
        return pa.nulls(rows, pa.string())
    return pa.array([getattr(rejected[at], name) if at in rejected else None for at in range(rows)], pa.string())
