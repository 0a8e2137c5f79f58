"""The bare engine: images decoded in memory, one process, one core, nothing else; extraction is held against it.

python -m benchmarks.measure.engine_loop IMAGES WEIGHTS PRECISION [REPEATS] [SECONDS]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from benchmarks.measure.child import run_module

from mission9.config import RunConfig
from mission9.models.engines import make_engine
from mission9.models.engines.base import Engine
from mission9.models.engines.int8 import Int8Network
from mission9.models.extraction import Extraction
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages.calibrate_int8 import calibrate_int8
from mission9.stages.make_extraction import make_extraction
from mission9.stages.prepare_images import ImageRow, Pixels, prepare_ahead

_DISTINCT = 128


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Images a second of the engine alone on one core: each pass, and their median."""

    precision: str
    engine: str
    batch_size: int
    distinct: int
    passes: list[float]
    rate: float


def engine_loop(images: Path, weights: str, precision: str, *, repeats: int, seconds: float) -> Loop:
    """Measured in a process of its own."""
    told = run_module("engine_loop", str(images), weights, precision, str(repeats), str(seconds))
    return Loop(**told)


def main() -> None:
    images, weights, precision = sys.argv[1:4]
    repeats, seconds = int(sys.argv[4]), float(sys.argv[5])
    config = RunConfig(input=os.path.realpath(images), weights=weights, precision=precision)
    extraction = _ready(config)
    # From here on: whatever threads the engine makes, they share one core.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pixels = _decoded(config.input, extraction)
    engine = make_engine(extraction.engine, extraction.weights, threads=1, int8=extraction.int8)
    _one_pass(engine, pixels, seconds / 3)
    passes = [_one_pass(engine, pixels, seconds) for _ in range(repeats)]
    loop = Loop(
        precision=precision,
        engine=extraction.engine.engine,
        batch_size=engine.batch_size,
        distinct=len(pixels),
        passes=passes,
        rate=median(passes),
    )
    print(json.dumps(asdict(loop)))


def _ready(config: RunConfig) -> Extraction:
    """Return the extraction that a run would send to its workers."""
    extraction = make_extraction(config)
    if config.precision != "int8":
        return extraction
    # In a process of its own, so that its threads on all cores are gone.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        network = pool.submit(_network, config.input, extraction).result()
    return replace(extraction, int8=network)


def _network(images: str, extraction: Extraction) -> Int8Network:
    root = find_root(images)
    return calibrate_int8(root, list_images(root, ListingCounts()), extraction)


def _decoded(images: str, extraction: Extraction) -> Pixels:
    root = find_root(images)
    listed = [row for batch in list_images(root, ListingCounts()) for row in batch.to_pylist()]
    rows = [ImageRow(row["path"], row["split"], row["label"], row["bytes"], root) for row in listed]
    chosen = rows[:: -(-len(rows) // _DISTINCT)]
    return np.concatenate([batch.pixels.copy() for batch in prepare_ahead(chosen, extraction)])


def _one_pass(engine: Engine, pixels: Pixels, seconds: float) -> float:
    """Images a second, in as many steps as fit into the time."""
    done, at, step = 0, 0, engine.batch_size
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        done += len(engine(pixels[at : at + step]))
        at = at + step if at + 2 * step <= len(pixels) else 0
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
