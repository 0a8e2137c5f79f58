"""What becomes of speed and memory when there are many images; what listing a million files costs.

    python benchmarks/large.py [--count N] [--base N] [--images DIR] [--weights FILE] [options of mission9 run]
    python benchmarks/large.py --listing [N]

The images are hard links to those at hand, under new names. `mission9 run` works through `--base` of them, then through
`--count`; rates and peaks of memory are compared. Memory is sampled every half second, of each process. With --listing,
nothing but the listing and the plan is made, of N files (default: a million) in folders of 5,000 and in one folder, and
of as many keys of a bucket, each in a fresh process. The bucket is a server on the loopback that lists keys and holds
no objects.

Figures go to benchmarks/results/large.json (--json), each kind beside what is there of the other.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import RESULTS, SHARED
from benchmarks.measure.child import ChildFailed
from benchmarks.measure.listing import ObjectInfo, listed, listed_in_bucket
from benchmarks.measure.machine import Machine, this_machine
from benchmarks.measure.memory import Memory
from benchmarks.measure.runs import mission9_run
from benchmarks.measure.trees import images_at_hand, jpegs, make_flat, make_tree, warm

from mission9.storage.local.files import write_atomic

FOLDER_FILES = 5000
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class LargeRun:
    """One run: rates in images a second, of the whole process and of its extraction."""

    images: int
    featured: int
    wall: float
    rate: float
    extraction: float
    seconds: dict[str, float]
    memory: Memory


@dataclass(frozen=True, kw_only=True)
class Large:
    """Two runs, the smaller first; ratios are the larger's figure over the smaller's."""

    machine: Machine
    images: str
    distinct: int
    command: str
    runs: list[LargeRun]
    ratio_of_rates: float
    ratio_of_extraction: float
    ratios_of_peaks: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Listings:
    """By layout."""

    machine: Machine
    layouts: dict[str, ObjectInfo]


def main() -> int:
    arguments, options = parse()
    file: Path = arguments.json
    try:
        with tempfile.TemporaryDirectory(prefix="mission9-large-", dir=arguments.work) as folder:
            work = Path(folder).resolve()
            if arguments.listing:
                listings = measure_listings(arguments, work)
                add(file, "listings", asdict(listings))
                print(*listing_text(listings), sep="\n")
            else:
                large = measure_runs(arguments, options, work)
                add(file, "large", asdict(large))
                print(*large_text(large), sep="\n")
    except ChildFailed as error:
        print(f"benchmarks/large.py: {error}", file=sys.stderr)
        return 1
    print(f"figures in {file}; the page: python benchmarks/report.py")
    return 0


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--count", type=int, default=67_692, help="images of the large run (default: 67692)")
    parser.add_argument("--base", type=int, default=4000, help="images of the run it is held against (default: 4000)")
    parser.add_argument("--images", type=Path, help="folder of .jpg images (default: ../shared/fruits-360, else drawn)")
    parser.add_argument("--weights", help="demo, or a file (default: the one in ../shared/weights, else demo)")
    parser.add_argument("--listing", type=int, nargs="?", const=1_000_000, help="list so many files, and nothing else")
    parser.add_argument("--json", type=Path, default=RESULTS / "large.json", help="file for all figures")
    parser.add_argument("--work", type=Path, help="folder to make links and results in (default: the system's)")
    return parser.parse_known_args()


def measure_runs(arguments: argparse.Namespace, options: list[str], work: Path) -> Large:
    source, called = images_at_hand(arguments.images, SHARED / "fruits-360", work)
    paths = jpegs(source)
    warm(source, paths)
    weights = arguments.weights or next(map(str, sorted((SHARED / "weights").glob("*.pth"))), "demo")
    runs = []
    for count in (arguments.base, arguments.count):
        print(f"{count:,} images …", flush=True)
        tree = make_tree(source, paths, count, work / f"images{count}")
        runs.append(one_run([*options, "--weights", weights], tree, work / f"output{count}"))
        print(f"    {runs[-1].wall:.1f} s, {runs[-1].rate:.1f} images/s", flush=True)
    small, large = runs
    return Large(
        machine=this_machine(),
        images=called,
        distinct=len(paths),
        command=" ".join(["mission9 run", *options]),
        runs=runs,
        ratio_of_rates=large.rate / small.rate,
        ratio_of_extraction=large.extraction / small.extraction,
        ratios_of_peaks=dict(ratios_of_peaks(small.memory, large.memory)),
    )


def one_run(options: list[str], tree: Path, output: Path) -> LargeRun:
    done, report = mission9_run(options, tree, output, sampling=0.5)
    shutil.rmtree(output)
    splits = report["splits"].values()
    images = sum(split["listed"] for split in splits)
    return LargeRun(
        images=images,
        featured=sum(split["featured"] for split in splits),
        wall=done.wall,
        rate=images / done.wall,
        extraction=images / report["seconds"]["extract"],
        seconds=report["seconds"],
        memory=done.memory,
    )


def ratios_of_peaks(small: Memory, large: Memory) -> Iterator[tuple[str, float]]:
    """Of the largest process of each kind, and of all together."""
    for kind in sorted(small.kinds.keys() & large.kinds.keys()):
        yield kind, large.kinds[kind].largest / max(1, small.kinds[kind].largest)
    yield "together", large.together / max(1, small.together)


def measure_listings(arguments: argparse.Namespace, work: Path) -> Listings:
    source, _ = images_at_hand(arguments.images, SHARED / "fruits-360", work)
    paths, count = jpegs(source), arguments.listing
    layouts = {}
    for called, size in ((f"folders of {FOLDER_FILES:,}", FOLDER_FILES), ("one folder", count)):
        start = time.monotonic()
        print(f"{count:,} files, {called} …", flush=True)
        tree = make_flat(source, paths, count, work / "links", folder_size=size)
        print(f"    made in {time.monotonic() - start:.1f} s", flush=True)
        layouts[called] = listed(str(tree))
        shutil.rmtree(tree)
    for called, size in ((f"bucket, prefixes of {FOLDER_FILES:,}", FOLDER_FILES), ("bucket, one prefix", count)):
        print(f"{count:,} keys, {called} …", flush=True)
        layouts[called] = listed_in_bucket(count, size)
    return Listings(machine=this_machine(), layouts=layouts)


def add(file: Path, part: str, figures: dict[str, Any]) -> None:
    """Put one kind of figures into the file, beside what is there of the other."""
    there = json.loads(file.read_bytes()) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(there | {part: figures}, indent=2, ensure_ascii=False) + "\n").encode())


def large_text(large: Large) -> Iterator[str]:
    for run in large.runs:
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run.seconds.items())
        yield f"{run.images:,} images: {run.wall:.1f} s, {run.rate:.1f} images/s (extraction {run.extraction:.1f})"
        yield f"    seconds: {stages}"
        for kind, peak in run.memory.kinds.items():
            yield (
                f"    {kind:<8}{peak.processes:>3} processes, largest {peak.largest / MIB:,.0f} MiB, "
                f"together {peak.together / MIB:,.0f} MiB ({run.memory.measure})"
            )
    peaks = ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in large.ratios_of_peaks.items())
    yield f"ratio of rates {large.ratio_of_rates:.2f}, of extraction {large.ratio_of_extraction:.2f}; of peaks: {peaks}"


def listing_text(listings: Listings) -> Iterator[str]:
    for called, found in listings.layouts.items():
        yield (
            f"{found.images:,} files, {called}: {found.seconds:.1f} s, {found.shards:,} shards, peak "
            f"{found.peak / MIB:,.0f} MiB RSS, of which {found.before / MIB:,.0f} MiB before listing"
        )


if __name__ == "__main__":
    sys.exit(main())
