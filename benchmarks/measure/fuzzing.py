"""Work of one process of the fuzzer: damaged images, decoded or extracted, and checks of each outcome."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
from benchmarks.measure import SHARED
from tests.support.mutate import mutate
from tests.support.seeds import Seed, make_seeds

from mission9 import RunConfig
from mission9.decoding.isolated import Decoded, decode_apart
from mission9.decoding.protocol import MAX_IMAGES, DecoderSettings
from mission9.errors import REASONS, ImageError
from mission9.models.extraction import Extraction
from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.models.preprocess import INPUT_CHANNELS
from mission9.options import MAX_PIXELS, Preprocess
from mission9.output.shards import Shard, read_features, read_marker, read_rejects
from mission9.schema import FEATURES, vectors
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages.extract_shard import ExtractShards
from mission9.stages.make_extraction import make_extraction
from mission9.stages.plan_shards import plan_shards
from mission9.stages.reuse import ReusableShards

SLOW = 1.0  # seconds that are worth a note
_SUSPECT = 0.25  # seconds for a run of images, of which one is then found
_TWICE = 10  # every so many runs of images are decoded once more
# A child may die or give up: these are verdicts. They are noted, since each is worth a look.
_NOTED = ("decoder_crashed", "timeout", "out_of_memory")
_SHAPE = (INPUT_SIZE, INPUT_SIZE, INPUT_CHANNELS)


class Job(NamedTuple):
    """Inputs `first` and on, for the decoder ("decode") or the worker function ("whole")."""

    target: str
    seed: int
    first: int
    images: int
    keep: Path


@dataclass
class Tally:
    """Outcomes of the inputs so far; adds up."""

    inputs: int = 0
    by_target: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_kind: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    decoded_twice: int = 0
    child_peak: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)
    noted: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        for mine, theirs in ((self.by_target, other.by_target), (self.by_kind, other.by_kind)):
            for key, counts in theirs.items():
                mine[key] += counts
        self.decoded_twice += other.decoded_twice
        self.child_peak = max(self.child_peak, other.child_peak)
        self.faults += other.faults
        self.noted += other.noted
        self.slowest = max(self.slowest, other.slowest)

    def count(self, target: str, seed: Seed, outcome: str) -> None:
        self.inputs += 1
        self.by_target[target][outcome] += 1
        self.by_kind[seed.kind][outcome] += 1


def make_input(seed: int, number: int) -> Seed:
    """The damaged image of a number; always the same one for a seed."""
    chance = np.random.default_rng([seed, number])
    kinds = _seeds()
    names = sorted(kinds)
    chosen, other = (kinds[names[int(chance.integers(len(names)))]] for _ in range(2))
    first, second = (group[int(chance.integers(len(group)))] for group in (chosen, other))
    return first._replace(data=mutate(chance, first.data, second.data))


def work(job: Job) -> Tally:
    """Do a job, in a process of its own."""
    tally = Tally()
    (_whole if job.target == "whole" else _decode)(job, tally)
    for child in psutil.Process().children():
        if child.status() == psutil.STATUS_ZOMBIE:  # of a library's, and nobody has asked how it ended
            continue
        facts = Path(f"/proc/{child.pid}/status").read_text()
        peak = next((line.split()[1] for line in facts.splitlines() if line.startswith("VmHWM")), "0")
        tally.child_peak = max(tally.child_peak, int(peak) * 1024)
    return tally


def _decode(job: Job, tally: Tally) -> None:
    how: Preprocess = "crop" if job.first // job.images % 4 == 3 else "stretch"
    settings = DecoderSettings(how, MAX_PIXELS)
    for run, first in enumerate(range(job.first, job.first + job.images, MAX_IMAGES)):
        numbers = range(first, min(first + MAX_IMAGES, job.first + job.images))
        seeds = [make_input(job.seed, number) for number in numbers]
        began = time.monotonic()
        found = _outcomes([seed.data for seed in seeds], settings)
        suspect = time.monotonic() - began > _SUSPECT
        again = _outcomes([seed.data for seed in seeds], settings) if run % _TWICE == 0 else found
        tally.decoded_twice += len(seeds) if run % _TWICE == 0 else 0
        for number, seed, outcome, second in zip(numbers, seeds, found, again, strict=True):
            tally.count("decode", seed, _word(outcome))
            fault = _fault(outcome) or ("" if _same(outcome, second) else f"then {_word(second)}, or other pixels")
            _keep(job, tally, number, seed, outcome=_told(outcome), fault=fault, what=_word(outcome))
            if suspect:
                began = time.monotonic()
                alone = _outcomes([seed.data], settings)[0]
                seconds = time.monotonic() - began
                tally.slowest = max(tally.slowest, seconds)
                if seconds > SLOW and _word(outcome) not in _NOTED:
                    _keep(job, tally, number, seed, outcome=_told(alone), what="slow")


def _outcomes(images: Sequence[bytes], settings: DecoderSettings) -> list[Decoded | ImageError | Exception]:
    try:
        return list(decode_apart(images, settings))
    except Exception as error:
        if len(images) == 1:
            return [error]
        return [_outcomes([image], settings)[0] for image in images]


def _fault(outcome: Decoded | ImageError | Exception) -> str:
    """Return the fault of an outcome; empty if there is none."""
    if isinstance(outcome, Decoded):
        sound = outcome.pixels.shape == _SHAPE and 0 < outcome.width * outcome.height <= MAX_PIXELS
        return "" if sound else f"{outcome.width} x {outcome.height}, pixels {outcome.pixels.shape}"
    if isinstance(outcome, ImageError):
        return "" if outcome.reason in REASONS else f"reason {outcome.reason}"
    return f"{type(outcome).__name__}: {outcome}"


def _same(one: Decoded | ImageError | Exception, other: Decoded | ImageError | Exception) -> bool:
    if isinstance(one, Decoded) and isinstance(other, Decoded):
        return one[:2] == other[:2] and bool((one.pixels[..., :3] == other.pixels[..., :3]).all())
    return _word(one) == _word(other)


def _word(outcome: Decoded | ImageError | Exception) -> str:
    if isinstance(outcome, Decoded):
        return "picture"
    return outcome.reason if isinstance(outcome, ImageError) else type(outcome).__name__


def _told(outcome: Decoded | ImageError | Exception) -> str:
    return f"{outcome.width} x {outcome.height}" if isinstance(outcome, Decoded) else f"{_word(outcome)}: {outcome}"


def _keep(job: Job, tally: Tally, number: int, seed: Seed, *, outcome: str, fault: str = "", what: str = "") -> None:
    """Note an input that is a fault, or worth a look, and keep its bytes."""
    if not fault and what not in (*_NOTED, "slow"):
        return
    file = job.keep / f"{job.seed}-{number}.{seed.kind.lower()}"
    file.write_bytes(seed.data)
    facts = {"number": number, "what": fault or what, "kind": seed.kind, "name": seed.name, "outcome": outcome}
    (tally.faults if fault else tally.noted).append(facts)


def _whole(job: Job, tally: Tally) -> None:
    seeds = {number: make_input(job.seed, number) for number in range(job.first, job.first + job.images)}
    with tempfile.TemporaryDirectory(prefix="mission9-fuzz-") as work:
        root, folder = Path(work).resolve() / "images", Path(work).resolve() / "shards"
        folder.mkdir()
        for number, seed in seeds.items():
            file = root / seed.kind / f"{number}.{seed.kind.lower()}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(seed.data)
        try:
            features, rejects = _extract(root, folder)
        except Exception as error:
            tally.faults.append(
                {"number": job.first, "what": f"{type(error).__name__}: {error}", "kind": "", "name": ""}
            )
            return
    _check_rows(job, tally, seeds, features, rejects)


def _extract(root: Path, folder: Path) -> tuple[pa.Table, pa.Table]:
    """The features and rejects that the worker function commits, all shards together."""
    extraction, images, found = _extraction(), find_root(str(root)), ListingCounts()
    rows = list_images(images, found)
    plan = plan_shards(rows, ReusableShards(folder), folder, extraction.shard_images)
    shards = Shard.pack(plan.shards)
    task = ExtractShards(root=images, todo=plan.todo, shards=shards, extraction=extraction, folder=folder)
    for number, shard in enumerate(plan.shards):
        task(number)
        marker = read_marker(folder, shard.key)
        if marker is None or marker.images != shard.images:
            raise RuntimeError(f"shard {number} of {shard.images} images has the marker {marker}")
    keys = [shard.key for shard in plan.shards]
    features, rejects = (
        pa.concat_tables([read(folder, key) for key in keys]) for read in (read_features, read_rejects)
    )
    if found.listed.total() != len(features) + len(rejects):
        raise RuntimeError(f"{found.listed.total()} listed, {len(features)} featured, {len(rejects)} rejected")
    return features, rejects


def _check_rows(job: Job, tally: Tally, seeds: dict[int, Seed], features: pa.Table, rejects: pa.Table) -> None:
    outcomes: dict[int, list[str]] = defaultdict(list)
    digests, numbers = features["sha256"].to_pylist(), vectors(features["features"]).reshape(-1, FEATURES)
    finite: list[bool] = [bool(np.isfinite(row).all()) for row in numbers]
    for path, digest, sound in zip(features["path"].to_pylist(), digests, finite, strict=True):
        number = int(Path(path).stem)
        right = sound and digest == hashlib.sha256(seeds[number].data).hexdigest()
        outcomes[number].append("picture" if right else "wrong features")
    for path, reason in zip(rejects["path"].to_pylist(), rejects["reason"].to_pylist(), strict=True):
        outcomes[int(Path(path).stem)].append(reason)
    for number, seed in seeds.items():
        found = outcomes[number]
        fault = "" if len(found) == 1 and found[0] in ("picture", *REASONS) else f"rows: {', '.join(found) or 'none'}"
        what = found[0] if found else "no row"
        tally.count("whole", seed, what)
        _keep(job, tally, number, seed, outcome=what, fault=fault, what=what)


@cache
def _seeds() -> dict[str, list[Seed]]:
    kinds: dict[str, list[Seed]] = defaultdict(list)
    for seed in make_seeds(SHARED / "fruits-360"):
        kinds[seed.kind].append(seed)
    return kinds


@cache
def _extraction() -> Extraction:
    return make_extraction(RunConfig(weights="demo", engine="auto", device="cpu"))
