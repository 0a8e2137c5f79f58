"""Cost of decoding in child processes: the worker's loop with them, and with the same decoding in the worker itself.

python -m benchmarks.measure.isolation IMAGES WEIGHTS PASSES
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from benchmarks.measure.child import run_module

from mission9.config import RunConfig
from mission9.decoding.decode import decode_image
from mission9.decoding.isolated import Decoded, decode_apart
from mission9.decoding.worker import DecoderSettings
from mission9.errors import ImageError
from mission9.models.extraction import Extraction
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages import prepare_images
from mission9.stages.infer_features import infer_features
from mission9.stages.make_extraction import make_extraction
from mission9.stages.prepare_images import ImageRow

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
    ways = {"apart": decode_apart, "within": decode_within}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(passes + 1):  # the first of each warms up
        for name, way in ways.items():
            vars(prepare_images)["decode_apart"] = way
            rates[name].append(rate(rows, extraction))
    print(json.dumps(asdict(Isolation(images=len(rows), apart=rates["apart"][1:], within=rates["within"][1:]))))


def decode_within(images: Sequence[bytes], settings: DecoderSettings) -> list[Decoded | ImageError]:
    """As `decode_apart`, in this process."""
    found = []
    for data in images:
        start = time.process_time()
        picture = decode_image(data, max_pixels=settings.max_pixels)
        pixels = settings.to_pixels(picture)
        found.append(Decoded(picture.width, picture.height, pixels, time.process_time() - start))
    return list(found)


def rate(rows: list[ImageRow], extraction: Extraction) -> float:
    start = time.perf_counter()
    done: int = sum(batch.num_rows for batch in infer_features(rows, extraction))
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
