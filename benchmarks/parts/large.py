"""Speed and memory at many images, held against those at few; memory is sampled every half second."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from benchmarks.measure.runs import whole_run
from benchmarks.measure.sitting import Sitting
from benchmarks.parts import Figures, Part

IMAGES = 67_692  # as many as there are in the training set of fruits-360

Json = dict[str, Any]


def run(sitting: Sitting) -> Figures:
    """Run `mission9 run` on `--base` images, then on `--count`; ratios are the larger's figure over the smaller's."""
    small, large = runs = [one_run(sitting, count) for count in (sitting.options.base, sitting.options.count or IMAGES)]
    return {
        "machine": asdict(sitting.machine),
        "images": sitting.called,
        "distinct": len(sitting.paths),
        "command": " ".join(["mission9 run", *sitting.options.options]),
        "runs": runs,
        "ratio_of_rates": large["rate"] / small["rate"],
        "ratio_of_extraction": large["extraction"] / small["extraction"],
        "ratios_of_peaks": dict(ratios_of_peaks(small["memory"], large["memory"])),
    }


def one_run(sitting: Sitting, count: int) -> Json:
    sitting.say(f"{count:,} images …")
    output = sitting.work / f"large {count}"
    options = [*sitting.options.options, "--weights", sitting.weights]
    found = whole_run(options, sitting.tree(count), output, sampling=0.5)
    shutil.rmtree(output)
    sitting.say(f"    {found['wall']:.1f} s, {found['rate']:.1f} images/s")
    return found


def ratios_of_peaks(small: Json, large: Json) -> Iterator[tuple[str, float]]:
    """Of the largest process of each kind, and of all together."""
    for kind in sorted(small["kinds"].keys() & large["kinds"].keys()):
        yield kind, large["kinds"][kind]["largest"] / max(1, small["kinds"][kind]["largest"])
    yield "together", large["together"] / max(1, small["together"])


LARGE = Part(name="large", section="large", run=run, is_long=True)
