"""A full run of very many images, and what its processes hold all the while: memory, open files, temporary space.

    python benchmarks/soak.py [--count N] [--images DIR] [--weights FILE] [options of mission9 run]

The images are hard links to those at hand, under new names. Each second every process of `mission9 run` is looked at.
What grows is told as the ratio of two medians, of the last fifth of the extraction over its second fifth (the first is
still warming up), and drawn over time. Figures go to benchmarks/results/soak.json, the drawing to
docs/images/soak.svg, and both into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import REPOSITORY, RESULTS, SHARED
from benchmarks.measure.machine import Machine, this_machine
from benchmarks.measure.page import put_section
from benchmarks.measure.resources import Sample, watched
from benchmarks.measure.runs import mission9_run
from benchmarks.measure.trees import images_at_hand, jpegs, make_tree

MIB = 2**20
PAGE = REPOSITORY / "docs" / "reliability.md"
DRAWING = REPOSITORY / "docs" / "images" / "soak.svg"


@dataclass(frozen=True, kw_only=True)
class Soak:
    """The run, every sample, and by what was sampled the ratio of late to early."""

    machine: Machine
    images: int
    featured: int
    rejected: int
    distinct: int
    wall: float
    seconds: dict[str, float]
    growth: dict[str, float]
    left_over: list[str]
    samples: list[Sample]


def main() -> int:
    arguments, options = parse()
    with tempfile.TemporaryDirectory(prefix="mission9-soak-", dir=arguments.work) as folder:
        soak = measure(arguments, options, Path(folder).resolve())
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(asdict(soak), indent=1) + "\n")
    print(*table(soak), sep="\n")
    if arguments.json.parent == RESULTS:
        draw(soak, DRAWING)
        put_section(PAGE, "soak", [*table(soak), "", f"![Memory, files and space]({DRAWING.relative_to(PAGE.parent)})"])
    return 0


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--count", type=int, default=200_000, help="images (default: 200000)")
    parser.add_argument("--images", type=Path, help="folder of .jpg images (default: ../shared/fruits-360, else drawn)")
    parser.add_argument("--weights", help="demo, or a file (default: the one in ../shared/weights, else demo)")
    parser.add_argument("--json", type=Path, default=RESULTS / "soak.json", help="file for all figures")
    parser.add_argument("--work", type=Path, help="folder to make links and results in (default: the system's)")
    return parser.parse_known_args()


def measure(arguments: argparse.Namespace, options: Sequence[str], work: Path) -> Soak:
    source, _ = images_at_hand(arguments.images, SHARED / "fruits-360", work)
    paths = jpegs(source)
    tree = make_tree(source, paths, arguments.count, work / "images")
    weights = arguments.weights or next(map(str, sorted((SHARED / "weights").glob("*.pth"))), "demo")
    temporary = work / "temporary"
    temporary.mkdir()
    places = {"TMPDIR": str(temporary), "SPARK_LOCAL_DIRS": str(temporary)}
    with watched(os.getpid(), temporary) as samples:
        command = [*options, "--weights", weights]
        done, report = mission9_run(command, tree, work / "output", sampling=60, environment=places)
        left = left_over(temporary)
    splits = report["splits"].values()
    return Soak(
        machine=this_machine(),
        images=sum(split["listed"] for split in splits),
        featured=sum(split["featured"] for split in splits),
        rejected=sum(split["rejected"] for split in splits),
        distinct=len(paths),
        wall=done.wall,
        seconds=report["seconds"],
        growth=growth(samples, report["seconds"]),
        left_over=left,
        samples=samples,
    )


def left_over(temporary: Path) -> list[str]:
    """Return what stays in the folder of temporary files; Spark's Java tidies up for a moment after the run."""
    deadline = time.monotonic() + 10
    while (names := sorted(path.name for path in temporary.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.1)
    return names


def growth(samples: Sequence[Sample], seconds: dict[str, float]) -> dict[str, float]:
    """Return what there is late in the extraction over what there was early, by what was sampled."""
    start, took = seconds["list"] + seconds["start"], seconds["extract"]
    early = [sample for sample in samples if 0.2 <= (sample.at - start) / took < 0.4]
    late = [sample for sample in samples if 0.8 <= (sample.at - start) / took < 1.0]
    if not (early and late):
        return {}  # too short to tell
    return {
        what: round(median(map(measure, late)) / max(1, median(map(measure, early))), 3)
        for what, measure in measures(samples).items()
    }


def measures(samples: Sequence[Sample]) -> dict[str, Callable[[Sample], int]]:
    """Return what is read from a sample, by its name."""

    def memory_of(kind: str) -> Callable[[Sample], int]:
        return lambda sample: sample.memory.get(kind, 0)

    kinds = sorted({kind for sample in samples for kind in sample.memory})
    return {f"memory of {kind}": memory_of(kind) for kind in kinds} | {
        "memory together": lambda sample: sum(sample.memory.values()),
        "open files": lambda sample: sum(sample.files.values()),
        "temporary space": lambda sample: sample.temporary,
    }


def table(soak: Soak) -> Iterator[str]:
    yield (
        f"{soak.images:,} images ({soak.distinct:,} distinct): {soak.featured:,} featured, {soak.rejected:,} rejected, "
        f"{soak.wall:.0f} s. Left in the temporary folder: {', '.join(soak.left_over) or 'nothing'}."
    )
    yield ""
    yield "| what | late over early | at most |"
    yield "|---|---|---|"
    for what, measure in measures(soak.samples).items():
        most, late = max(map(measure, soak.samples)), soak.growth.get(what)
        most_text = f"{most:,}" if what == "open files" else f"{most / MIB:,.1f} MiB"
        yield f"| {what} | {'too short to tell' if late is None else f'{late:.2f}'} | {most_text} |"


def draw(soak: Soak, file: Path) -> None:
    """Three charts over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    memory, files, space = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 1))
    at = [sample.at / 60 for sample in soak.samples]
    for kind in sorted({kind for sample in soak.samples for kind in sample.memory}):
        memory.plot(at, [sample.memory.get(kind, 0) / MIB for sample in soak.samples], label=kind)
        files.plot(at, [sample.files.get(kind, 0) for sample in soak.samples], label=kind)
    space.plot(at, [sample.temporary / MIB for sample in soak.samples])
    memory.set(title=f"{soak.images:,} images", ylabel="memory, MiB (PSS)", ylim=0)
    files.set(ylabel="open files", ylim=0)
    space.set(ylabel="temporary, MiB", xlabel="minutes", ylim=0)
    memory.legend(loc="center right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
