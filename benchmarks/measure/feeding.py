"""Cost of feeding the network: CPU microseconds an image by process, and the ceiling with an engine that takes no time.

python -m benchmarks.measure.feeding IMAGES [PASSES]

feeding   the worker itself: requests, answers, outcomes; readers answer at once
ceiling   images a second of one worker and its readers, without a network
reading   the reader: files and digests, and the supervision of its decoder
decoding  the decoder
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from mission9.config import RunConfig
from mission9.decoding import feeder
from mission9.models.extraction import Extraction
from mission9.schema import FEATURES
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages import infer_features as module
from mission9.stages.make_extraction import make_extraction
from mission9.stages.prepare_images import ImageRow, Pixels

_IMAGES = 4000
_INSTANT = Path(__file__).parents[2] / "tests" / "support" / "instant_reader.py"


class Null:
    """An engine that answers at once."""

    batch_size = 2

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        return np.zeros((len(images), FEATURES), np.float32)


def main() -> None:
    root, passes = find_root(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    extraction = make_extraction(RunConfig(input=root, weights="demo", engine="openvino"))
    listed = (row for batch in list_images(root, ListingCounts()) for row in batch.to_pylist())
    rows = [ImageRow(r["path"], r["split"], r["label"], r["bytes"], root) for r in islice(listed, _IMAGES)]
    vars(module)["make_engine"] = lambda *_, **__: Null()
    with _instant_readers():
        feeding = _measured(time.process_time, rows, extraction, passes)
    _run(rows, extraction)
    ceiling = median(len(rows) / _seconds(time.perf_counter, rows, extraction) for _ in range(passes))
    (reader,) = (child for child in psutil.Process().children() if "mission9.decoding.reader" in child.cmdline())
    (decoder,) = reader.children()
    found = {
        "feeding": feeding,
        "reading": _measured(lambda: _cpu(reader), rows, extraction, passes),
        "decoding": _measured(lambda: _cpu(decoder), rows, extraction, passes),
    }
    print(f"{len(rows):,} images, medians of {passes} passes; CPU microseconds an image:")
    print(*(f"{name:<9} {1e6 * seconds:7.1f}" for name, seconds in found.items()), sep="\n")
    print(f"together  {1e6 * sum(found.values()):7.1f}")
    print(f"ceiling   {ceiling:7,.0f} images/s of one worker without a network")


@contextmanager
def _instant_readers() -> Iterator[None]:
    start, command = subprocess.Popen, "mission9.decoding.reader"

    def instant(words: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return start([sys.executable, str(_INSTANT), *words[words.index(command) + 1 :]], **options)

    vars(subprocess)["Popen"] = instant
    try:
        yield
    finally:
        vars(subprocess)["Popen"] = start
        feeder._idle.clear()


def _measured(clock: Callable[[], float], rows: list[ImageRow], extraction: Extraction, passes: int) -> float:
    _run(rows, extraction)
    return median(_seconds(clock, rows, extraction) / len(rows) for _ in range(passes))


def _seconds(clock: Callable[[], float], rows: list[ImageRow], extraction: Extraction) -> float:
    start = clock()
    _run(rows, extraction)
    return clock() - start


def _run(rows: list[ImageRow], extraction: Extraction) -> None:
    for _ in module.infer_features(rows, extraction):
        pass


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
