"""Extract a sample of the images as a run would: seconds an image, and their spread."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from mission9.config import RunConfig
from mission9.decoding.decode import fast_side
from mission9.devices import workers_here
from mission9.errors import ConfigError, InputError
from mission9.estimate.fast import is_jpeg
from mission9.estimate.interval import Interval
from mission9.models.extraction import Extraction
from mission9.runners.local import LocalRunner
from mission9.sampling import Reservoir
from mission9.schema import LISTING
from mission9.sources import find_root
from mission9.sources.base import Root
from mission9.sources.list_images import list_images
from mission9.sources.listing import Listing, ListingCounts
from mission9.stages.infer_features import infer_features
from mission9.stages.make_extraction import make_extraction
from mission9.stages.prepare_images import ImageRow
from mission9.storage.location import real_root

SAMPLE = 200
_MANY = 0.25  # a share of images, or of the time, that deserves a hint
_FEWEST_PARTS = 8  # of the sample, so that their times vary as those of shards do


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The measurements of a probe.

    `seconds` are of one worker for each image, while all workers are busy, `cpu_seconds` their part in reading and
    decoding, and `list_seconds` of the whole listing; `rejected` counts the sample's rejects by reason. `large_jpegs`
    is the share of JPEGs that --decode fast would decode at a reduced size.
    """

    images: int
    sampled: int
    rejected: Mapping[str, int]
    workers: int
    device: str
    seconds: Interval
    cpu_seconds: float
    list_seconds: float
    large_jpegs: float = 0.0

    @property
    def wants_fast(self) -> bool:
        """True if much of the time is spent on decoding large JPEGs exactly."""
        return self.large_jpegs >= _MANY and self.cpu_seconds >= _MANY * self.seconds.mid


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Measurements of a part of the sample: its time, its large JPEGs, and its rejects by reason."""

    images: int
    seconds: float
    cpu_seconds: float
    rejected: Mapping[str, int]
    large_jpegs: int


def probe(config: RunConfig) -> Probe:
    """List all images, and extract a sample of them on all workers of this machine.

    Raises:
        UsageError: there are no images, the whole sample is rejected, or a setting is not valid.
        SetupError: the machine lacks a requirement.
    """
    if config.precision == "int8":
        raise ConfigError("int8 cannot be estimated, since only a whole run calibrates it: estimate float32")
    extraction = make_extraction(config.model_copy(update={"runner": "local", "master": None}))
    start = time.monotonic()
    rows, images = _sample(config)
    listed = time.monotonic() - start
    workers = config.workers or workers_here(config.device)
    woken, counted = _measure(extraction, _parts(rows, workers), workers)
    rejected = sum((Counter(part.rejected) for part in (*woken, *counted)), Counter[str]())
    _check_not_all(rejected, len(rows), config)
    return Probe(
        images=images,
        sampled=len(rows),
        rejected=dict(rejected),
        workers=workers,
        device=extraction.engine.device,
        seconds=Interval.of_mean([part.seconds / part.images for part in counted]),
        cpu_seconds=sum(part.cpu_seconds for part in counted) / sum(part.images for part in counted),
        list_seconds=listed,
        large_jpegs=sum(part.large_jpegs for part in (*woken, *counted)) / len(rows),
    )


def _check_not_all(rejected: Counter[str], sampled: int, config: RunConfig) -> None:
    """Refuse to take the time of failures for that of images."""
    if rejected.total() == sampled:
        raise InputError(
            f"all {sampled:,} sampled images of {config.input} were rejected ({describe_rejects(rejected)}), so no "
            "time can be estimated: pass another --input, or fix these images"
        )


def describe_rejects(rejected: Mapping[str, int]) -> str:
    """Counts by reason as text, the largest first."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(rejected).most_common())


def _sample(config: RunConfig) -> tuple[list[ImageRow], int]:
    """A uniform sample of at most `SAMPLE` images, with a fixed seed, and the number of all images."""
    root = find_root(config.input)
    chosen = Reservoir[ImageRow](SAMPLE)
    for row in _rows(root, config):
        chosen.offer(lambda row=row: row)  # type: ignore[misc]
    if not chosen.items:
        raise InputError(f"there are no images in {config.input}: pass another --input")
    return chosen.items, chosen.seen


def _rows(root: Root, config: RunConfig) -> Iterator[ImageRow]:
    for batch in list_images(root, ListingCounts(), Listing.of(config, exclude=real_root(config.output))):
        table = pa.table(batch.columns, names=[field.name for field in LISTING])
        for row in table.select(["path", "split", "label", "bytes"]).to_pylist():
            yield ImageRow(row["path"], row["split"], row["label"], row["bytes"], root)


def _parts(rows: list[ImageRow], workers: int) -> list[list[ImageRow]]:
    """Divide the rows: one part to warm up the workers, and at least two for each worker."""
    count = min(len(rows), max(_FEWEST_PARTS, 2 * workers + 1))
    return [rows[start::count] for start in range(count)]


@dataclass(frozen=True)
class _Extract:
    """A task that extracts the part of a number; returns its measurements as JSON."""

    extraction: Extraction
    parts: Sequence[list[ImageRow]]

    def __call__(self, number: int) -> bytes:
        rows, cpu, rejected = self.parts[number % len(self.parts)], dict[str, float](), Counter[str]()
        large = 0
        start = time.monotonic()
        for outcomes in infer_features(rows, self.extraction, cpu_seconds=cpu):
            rejected.update(outcomes["reason"].drop_null().to_pylist())
            large += sum(map(self._is_large_jpeg, outcomes.select(["path", "width", "height"]).to_pylist()))
        seconds = time.monotonic() - start
        part = _Part(
            images=len(rows),
            seconds=seconds,
            cpu_seconds=cpu["read"] + cpu["decode"],
            rejected=dict(rejected),
            large_jpegs=large,
        )
        return json.dumps(asdict(part)).encode()

    def _is_large_jpeg(self, row: Mapping[str, Any]) -> bool:
        """True if --decode fast would decode the image at a reduced size."""
        smallest = 2 * fast_side(self.extraction.preprocess)
        is_exact = self.extraction.decode == "exact"
        return is_exact and is_jpeg(row["path"]) and min(row["width"] or 0, row["height"] or 0) >= smallest


def _measure(extraction: Extraction, parts: list[list[ImageRow]], workers: int) -> tuple[list[_Part], list[_Part]]:
    """The warm-up part, which is dropped if there are others, and the measured parts."""
    waking, counting = _Extract(extraction, parts[:1]), _Extract(extraction, parts[1:] or parts)
    with LocalRunner(workers) as runner:
        woken = runner.map(waking, workers)[:1]  # each warms up with the same part
        counted = runner.map(counting, len(counting.parts))
    return _read(woken if len(parts) > 1 else []), _read(counted)


def _read(told: Sequence[bytes]) -> list[_Part]:
    return [_Part(**json.loads(each)) for each in told]
