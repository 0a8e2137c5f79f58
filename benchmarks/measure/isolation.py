"""Cost of decoding in child processes: the worker's loop with them, and with the same decoding in the worker itself.

python -m benchmarks.measure.isolation IMAGES WEIGHTS PASSES
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from benchmarks.measure.child import run_module

from mission9.config import RunConfig
from mission9.decoding.decode import decode_image
from mission9.decoding.feeder import Prepared
from mission9.decoding.protocol import MAX_IMAGES
from mission9.models.extraction import Extraction
from mission9.models.preprocess import to_input
from mission9.sources import find_root, open_source
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages import infer_features as module
from mission9.stages.infer_features import infer_features
from mission9.stages.make_extraction import make_extraction
from mission9.stages.prepare_images import ImageRow, PreparedBatch, prepare_ahead

_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """Images a second on one core, pass by pass in turn, and the median ratio of the passes."""

    images: int
    apart: list[float]
    within: list[float]

    @property
    def ratio(self) -> float:
        return float(median(mine / theirs for mine, theirs in zip(self.apart, self.within, strict=True)))


def isolation(images: Path, weights: str, *, repeats: int) -> Isolation:
    """Measured in a process of its own."""
    return Isolation(**run_module("isolation", str(images), weights, str(2 * repeats)))


def main() -> None:
    images, weights, passes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    root = find_root(images)
    extraction = make_extraction(RunConfig(input=root, weights=weights))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the child inherits it: both share one core
    listed = (row for batch in list_images(root, ListingCounts()) for row in batch.to_pylist())
    rows = [ImageRow(r["path"], r["split"], r["label"], r["bytes"], root) for r in islice(listed, _IMAGES)]
    ways = {"apart": prepare_ahead, "within": prepare_within}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(passes + 1):  # the first of each warms up
        for name, way in ways.items():
            vars(module)["prepare_ahead"] = way
            rates[name].append(rate(rows, extraction))
    print(json.dumps(asdict(Isolation(images=len(rows), apart=rates["apart"][1:], within=rates["within"][1:]))))


def prepare_within(rows: Iterable[ImageRow], extraction: Extraction) -> Iterator[PreparedBatch]:
    """As `prepare_ahead`, in this process, of images that are not damaged."""
    rows = iter(rows)
    while batch := list(islice(rows, MAX_IMAGES)):
        start, source = time.process_time(), open_source(batch[0].root)
        contents = [source.read(row.path, max_bytes=extraction.max_bytes) for row in batch]
        digests = [list(sha256(data).digest()) for data in contents]
        pictures = [decode_image(data, max_pixels=extraction.max_pixels) for data in contents]
        pixels = np.stack([to_input(picture, extraction.preprocess) for picture in pictures])
        images = Prepared(
            width=np.array([picture.width for picture in pictures], np.int32),
            height=np.array([picture.height for picture in pictures], np.int32),
            size=np.array(list(map(len, contents))),
            sha256=np.array(digests, np.uint8),
            pixels=pixels,
            rejected=[],
            read_seconds=0.0,
            decode_seconds=0.0,
        )
        yield PreparedBatch(batch, images, pixels, {}, {}, time.process_time() - start)


def rate(rows: list[ImageRow], extraction: Extraction) -> float:
    start = time.perf_counter()
    done: int = sum(batch.num_rows for batch in infer_features(rows, extraction))
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
