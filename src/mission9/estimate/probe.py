"""A few images of many, extracted as a run would: seconds an image, and how far they vary."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from mission9.config import RunConfig
from mission9.errors import ConfigError, InputError
from mission9.estimate.interval import Interval
from mission9.extraction import Extraction
from mission9.places import real_root
from mission9.runners import workers_here
from mission9.runners.local import LocalRunner
from mission9.schema import LISTING
from mission9.settle import make_extraction
from mission9.stages.infer_features import infer_features
from mission9.stages.list_images import Found, list_images
from mission9.stages.prepare_images import ImageRow

SAMPLE = 200
_FEWEST_PARTS = 8  # of the sample; their times differ as those of shards do


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was measured here.

    `seconds` are a worker's for an image, while all workers are busy; `cpu_seconds` what reading and decoding take of
    them; `list_seconds` are for the whole listing.
    """

    images: int
    sampled: int
    workers: int
    device: str
    seconds: Interval
    cpu_seconds: float
    list_seconds: float


def probe(config: RunConfig) -> Probe:
    """List all images, and extract a sample of them on all of this machine's workers.

    Raises:
        UsageError: there are no images, or a setting is not possible.
        SetupError: the machine lacks something.
    """
    if config.precision == "int8":
        raise ConfigError("int8 is calibrated on the images first, which only a whole run does: estimate float32")
    extraction = make_extraction(config.model_copy(update={"runner": "local", "master": None}))
    start = time.monotonic()
    rows, images = _sample(config)
    listed = time.monotonic() - start
    workers = config.workers or workers_here(config.device)
    measured = _measure(_Extract(extraction, _parts(rows, workers)), workers)
    each = [seconds / count for seconds, _, count in measured]
    return Probe(
        images=images,
        sampled=len(rows),
        workers=workers,
        device=extraction.engine.device,
        seconds=Interval.of_mean(each),
        cpu_seconds=sum(cpu for _, cpu, _ in measured) / sum(count for _, _, count in measured),
        list_seconds=listed,
    )


def _sample(config: RunConfig) -> tuple[list[ImageRow], int]:
    """At most `SAMPLE` images, each as likely as any other, always the same ones; and how many there are."""
    root = real_root(config.input)
    chosen: list[ImageRow] = []
    chance, count = random.Random(0), 0  # noqa: S311 - nothing secret
    for row in _rows(root, config):
        count += 1
        if len(chosen) < SAMPLE:
            chosen.append(row)
        elif (place := chance.randrange(count)) < SAMPLE:
            chosen[place] = row
    if not chosen:
        raise InputError(f"there are no images in {config.input}; give another --input")
    return chosen, count


def _rows(root: str, config: RunConfig) -> Iterator[ImageRow]:
    for batch in list_images(root, Found(), all_files=config.all_files, leave_out=real_root(config.output)):
        table = pa.table(batch.columns, names=[field.name for field in LISTING])
        for row in table.select(["path", "split", "label", "bytes"]).to_pylist():
            yield ImageRow(row["path"], row["split"], row["label"], row["bytes"], root)


def _parts(rows: list[ImageRow], workers: int) -> list[list[ImageRow]]:
    """The rows shared out: one part to wake the workers with, and at least two for each of them."""
    count = min(len(rows), max(_FEWEST_PARTS, 2 * workers + 1))
    return [rows[start::count] for start in range(count)]


@dataclass(frozen=True)
class _Extract:
    """Called with a number, extracts that part; its seconds, those of the CPU, and its images, as JSON."""

    extraction: Extraction
    parts: list[list[ImageRow]]

    def __call__(self, number: int) -> bytes:
        rows, cpu = self.parts[number % len(self.parts)], dict[str, float]()
        start = time.monotonic()
        for _ in infer_features(rows, self.extraction, cpu_seconds=cpu):
            pass
        return json.dumps([time.monotonic() - start, sum(cpu.values()), len(rows)]).encode()


def _measure(task: _Extract, workers: int) -> list[tuple[float, float, int]]:
    warm = _Extract(task.extraction, task.parts[:1])
    # The first part wakes the workers, and is not counted where there are more.
    counted = _Extract(task.extraction, task.parts[1:] or task.parts)
    with LocalRunner(workers) as runner:
        runner.map(warm, workers)
        found = [json.loads(told) for told in runner.map(counted, len(counted.parts))]
    return [(float(seconds), float(cpu), int(count)) for seconds, cpu, count in found]
