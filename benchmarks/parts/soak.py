"""A full run of very many images, and the memory, open files and temporary space that its processes hold all the while.

The part samples every process of `mission9 run` each second. It reports growth as the ratio of two medians, that of the
last fifth of the extraction over that of its second fifth (the first is still warming up), and draws it over time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.measure import REPOSITORY
from benchmarks.measure.memory import Sample
from benchmarks.measure.runs import mission9_run
from benchmarks.measure.sitting import Sitting
from benchmarks.parts import Figures, Part

IMAGES = 200_000
MIB = 2**20
DRAWING = REPOSITORY / "docs" / "images" / "soak.svg"


def run(sitting: Sitting) -> Figures:
    """Run, and draw the samples if the figures are those that the page is made of."""
    tree = sitting.tree(sitting.options.count or IMAGES)
    temporary = sitting.work / "temporary"
    temporary.mkdir()
    places = {"TMPDIR": str(temporary), "SPARK_LOCAL_DIRS": str(temporary)}
    options = [*sitting.options.options, "--weights", sitting.weights]
    sitting.say("soak …")
    done, report = mission9_run(options, tree, sitting.work / "soak", environment=places, temporary=temporary)
    splits = report["splits"].values()
    counts = {name: sum(split[name] for split in splits) for name in ("listed", "featured", "rejected")}
    if sitting.options.json is None:
        draw(done.samples, counts["listed"], DRAWING)
    return {
        "machine": asdict(sitting.machine),
        "images": counts["listed"],
        "featured": counts["featured"],
        "rejected": counts["rejected"],
        "distinct": len(sitting.paths),
        "wall": done.wall,
        "seconds": report["seconds"],
        "growth": growth(done.samples, report["seconds"]),
        "most": {what: max(map(measure, done.samples)) for what, measure in measures(done.samples).items()},
        "left_over": left_over(temporary),
    }


def left_over(temporary: Path) -> list[str]:
    """Return the names that stay in a folder of temporary files; Spark's Java tidies up for a moment after the run."""
    deadline = time.monotonic() + 10
    while (names := sorted(path.name for path in temporary.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.1)
    return names


def growth(samples: Sequence[Sample], seconds: dict[str, float]) -> dict[str, float]:
    """Return the ratio of late to early in the extraction, by the name of the measure; none where it was too short."""
    start, took = seconds["list"] + seconds["start"], seconds["extract"]
    early = [sample for sample in samples if 0.2 <= (sample.at - start) / took < 0.4]
    late = [sample for sample in samples if 0.8 <= (sample.at - start) / took < 1.0]
    if not (early and late):
        return {}
    return {
        what: round(median(map(measure, late)) / max(1, median(map(measure, early))), 3)
        for what, measure in measures(samples).items()
    }


def kinds(samples: Sequence[Sample]) -> list[str]:
    return sorted({kind for sample in samples for kind in sample.memory})


def measures(samples: Sequence[Sample]) -> dict[str, Callable[[Sample], int]]:
    """Return the readers of a sample's numbers, by name."""

    def memory_of(kind: str) -> Callable[[Sample], int]:
        return lambda sample: sample.memory.get(kind, 0)

    return {f"memory of {kind}": memory_of(kind) for kind in kinds(samples)} | {
        "memory together": lambda sample: sum(sample.memory.values()),
        "open files": lambda sample: sum(sample.files.values()),
        "temporary space": lambda sample: sample.temporary,
    }


def draw(samples: Sequence[Sample], images: int, file: Path) -> None:
    """Draw three charts over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    memory, files, space = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 1))
    at = [sample.at / 60 for sample in samples]
    for kind in kinds(samples):
        memory.plot(at, [sample.memory.get(kind, 0) / MIB for sample in samples], label=kind)
        files.plot(at, [sample.files.get(kind, 0) for sample in samples], label=kind)
    space.plot(at, [sample.temporary / MIB for sample in samples])
    memory.set(title=f"{images:,} images", ylabel="memory, MiB (PSS)", ylim=0)
    files.set(ylabel="open files", ylim=0)
    space.set(ylabel="temporary, MiB", xlabel="minutes", ylim=0)
    memory.legend(loc="center right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


SOAK = Part(name="soak", section="soak", run=run, is_long=True)
