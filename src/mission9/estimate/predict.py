"""A probe -> minutes and dollars on this machine and on others, with bounds."""

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

# Of a whole run, beside listing and extraction: seconds however many images, and for each image of gathering, fitting
# and projecting. From the cost curve in docs/performance.md, and wide.
_FIXED = Interval(2.0, 8.0, 25.0)
_FINISHING = Interval(0.0001, 0.0003, 0.001)
# What a probe of a minute does not see: other load, colder files, larger images elsewhere.
_UNSEEN = Interval(0.75, 1.0, 1.35)
# Assumed: a core there does so many times the work of one here; and minutes until a cluster works, which are paid.
_CORE_THERE = Interval(0.5, 0.8, 1.2)
_START_THERE = Interval(5.0, 9.0, 15.0)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Minutes of the run itself, minutes with the machines' start, and dollars for these."""

    machine: str
    count: int
    run_minutes: Interval
    minutes: Interval
    cost: Interval


def predict_here(probe: Probe, images: int) -> Prediction:
    """For this machine, which costs nothing more."""
    run = _run(probe, images, probe.seconds.times(1 / probe.workers))
    return Prediction(machine=HERE, count=1, run_minutes=run, minutes=run, cost=Interval(0, 0, 0))


def predict_there(probe: Probe, images: int, instance: Instance, count: int) -> Prediction:
    """For so many machines of a cloud, of which EMR's part is paid too.

    A GPU computes while the cores decode: the slower of the two says how long it takes. Where the probe itself used a
    GPU, its decoding is taken from it, and the network on cores is not known.

    Raises:
        ConfigError: the probe used a GPU, and the machine has none.
    """
    if probe.device == "cuda" and not instance.gpu:
        raise ConfigError(f"{instance.name} has no GPU, and the probe used one: give --device cpu")
    here = Interval(probe.cpu_seconds, probe.cpu_seconds, probe.cpu_seconds) if instance.gpu else probe.seconds
    each = here.over(_CORE_THERE).times(1 / instance.cores)
    if instance.gpu:
        slowest, fastest = gpu_rates(instance.gpu)
        each = each.at_least(Interval(1 / fastest, 2 / (slowest + fastest), 1 / slowest))
    run = _run(probe, images, each.times(1 / count))
    minutes = run.plus(_START_THERE)
    cost = minutes.times(count * (instance.price + instance.emr) / 60)
    return Prediction(machine=instance.name, count=count, run_minutes=run, minutes=minutes, cost=cost)


def _run(probe: Probe, images: int, each: Interval) -> Interval:
    """Minutes of a run of so many images, of which each takes `each` seconds of all workers together."""
    extract = Interval(*(one * unseen for one, unseen in zip(each.times(images), _UNSEEN, strict=True)))
    listing = probe.list_seconds * images / max(1, probe.images)
    rest = _FIXED.plus(_FINISHING.times(images)).plus(Interval(listing / 2, listing, 2 * listing))
    return extract.plus(rest).times(1 / 60)


def file_to_keep(place: str) -> Path:
    """The file that an estimate is to be kept in, which is asked before a probe of minutes.

    Raises:
        ConfigError: none can be written there.
    """
    file = local_path(place)
    if file is None:
        raise ConfigError(f"--save {place}: an estimate is kept in a file; give one, and put it there afterwards")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--save {place}: there is no folder {folder}; make it, or give another file")
    if file.is_dir():
        raise ConfigError(f"--save {place} is a folder; give a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--save {place}: {folder} cannot be written; give a file elsewhere")
    return file


def save(file: Path, probe: Probe, images: int, predictions: Sequence[Prediction]) -> None:
    """Keep an estimate for `mission9 run --estimate`."""
    found = {"images": images, "probe": asdict(probe), "predictions": [asdict(item) for item in predictions]}
    write_atomic(file, (json.dumps(found, indent=2) + "\n").encode())
