"""A probe -> minutes and dollars on this machine and on others, as intervals."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mission9.errors import ConfigError
from mission9.estimate.instances import Instance, gpu_rates
from mission9.estimate.interval import Interval
from mission9.estimate.probe import Probe
from mission9.estimate.saved import HERE
from mission9.storage.local.files import write_atomic
from mission9.storage.location import local_path

# The rest of a run, after listing and extraction: a fixed number of seconds, and the seconds for each image of
# gathering, fitting and projecting. From the cost curve in docs/performance.md, with wide bounds.
_FIXED = Interval(2.0, 8.0, 25.0)
_FINISHING = Interval(0.0001, 0.0003, 0.001)
# Uncertainty that a probe of a minute misses: other load, colder caches, larger images.
_UNSEEN = Interval(0.75, 1.0, 1.35)
# Assumed: the speed of a core there relative to one here, and the paid minutes until a cluster starts working.
_CORE_THERE = Interval(0.5, 0.8, 1.2)
_START_THERE = Interval(5.0, 9.0, 15.0)
# Assumed: the seconds of one process for an image that it hands to a GPU, whatever the GPU, with the copy of its pixels
# and its row of the table.
_FEEDING = Interval(1 / 12000, 1 / 7000, 1 / 3500)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Minutes of the run itself, minutes including the machines' start, and dollars for these."""

    machine: str
    count: int
    run_minutes: Interval
    minutes: Interval
    cost: Interval


def predict_here(probe: Probe, images: int) -> Prediction:
    """Predict a run on this machine, at no further cost."""
    run = _run(probe, images, probe.seconds.times(1 / probe.workers))
    return Prediction(machine=HERE, count=1, run_minutes=run, minutes=run, cost=Interval(0, 0, 0))


def predict_there(probe: Probe, images: int, instance: Instance, count: int) -> Prediction:
    """Predict a run on `count` machines of a cloud, including EMR's price.

    A GPU computes while the cores decode and one process feeds it, so the slowest determines the time. If the probe
    used a GPU, only its decoding time applies, since the network's time on cores is unknown.

    Raises:
        ConfigError: the probe used a GPU, and the machine has none.
    """
    if probe.device == "cuda" and not instance.gpu:
        raise ConfigError(f"{instance.name} has no GPU, but the probe used one: pass --device cpu")
    here = Interval(probe.cpu_seconds, probe.cpu_seconds, probe.cpu_seconds) if instance.gpu else probe.seconds
    each = here.over(_CORE_THERE).times(1 / instance.cores)
    if instance.gpu:
        slowest, fastest = gpu_rates(instance.gpu)
        each = each.at_least(Interval(1 / fastest, 2 / (slowest + fastest), 1 / slowest)).at_least(_FEEDING)
    run = _run(probe, images, each.times(1 / count))
    minutes = run.plus(_START_THERE)
    cost = minutes.times(count * (instance.price + instance.emr) / 60)
    return Prediction(machine=instance.name, count=count, run_minutes=run, minutes=minutes, cost=cost)


def _run(probe: Probe, images: int, each: Interval) -> Interval:
    """Minutes of a run of `images`, at `each` seconds an image for all workers together."""
    extract = Interval(*(one * unseen for one, unseen in zip(each.times(images), _UNSEEN, strict=True)))
    listing = probe.list_seconds * images / max(1, probe.images)
    rest = _FIXED.plus(_FINISHING.times(images)).plus(Interval(listing / 2, listing, 2 * listing))
    return extract.plus(rest).times(1 / 60)


def file_to_keep(place: str) -> Path:
    """Check the file for an estimate, before a probe of minutes.

    Raises:
        ConfigError: it cannot be written.
    """
    file = local_path(place)
    if file is None:
        raise ConfigError(f"--save {place}: an estimate is saved in a local file: pass one, and upload it afterwards")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--save {place}: the folder {folder} does not exist: create it, or pass another file")
    if file.is_dir():
        raise ConfigError(f"--save {place} is a folder: pass a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--save {place}: {folder} cannot be written: pass a file in another folder")
    return file


def save(file: Path, probe: Probe, images: int, predictions: Sequence[Prediction]) -> None:
    """Save an estimate for `mission9 run --estimate`."""
    found = {"images": images, "probe": asdict(probe), "predictions": [asdict(item) for item in predictions]}
    write_atomic(file, (json.dumps(found, indent=2) + "\n").encode())
