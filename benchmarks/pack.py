"""What packing images once gains where they lie in a bucket: the same images as objects and as a pack, in turn.

    python benchmarks/pack.py [--count N] [--images DIR] [--weights FILE]

The bucket is in an S3 server of this program's own on the loopback (OpenStack Swift). Images are listed and read, by
turns objects and pack, a few times, with nothing done to them; then `mission9 run` works through both, and their tables
are held against each other. A server on the loopback answers at once but works slowly; one far away does neither.

Figures go to benchmarks/results/pack.json (--json), and from there into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import numpy as np
import pyarrow.parquet as pq
from benchmarks.measure import RESULTS, SHARED
from benchmarks.measure.child import ChildFailed, run_command
from benchmarks.measure.machine import Machine, this_machine
from benchmarks.measure.trees import images_at_hand, jpegs, make_tree
from scripts.s3_server import s3_server

from mission9.concurrency.prefetch import prefetch_map
from mission9.pack.make_pack import make_pack
from mission9.schema import vectors
from mission9.sources import open_source, resolve_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.storage.local.files import write_atomic

BUCKET = "pack-benchmark"
OPTIONS = ("--runner", "local", "--no-report", "--components", "10")


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Seconds to list, and images a second that are read by one process, nothing done to them."""

    list_seconds: float
    read_rate: float


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way in which images lie there: passes, and the run through them."""

    objects: int
    passes: list[Pass]
    extract_seconds: float
    wall: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Ratios are of medians, the pack's rate over the objects'; `largest_difference` is between any two features."""

    machine: Machine
    images: str
    count: int
    total_bytes: int
    command: str
    pack_seconds: float
    objects: Way
    pack: Way
    ratio_of_reading: float
    ratio_of_extraction: float
    largest_difference: float
    same_rows: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--images", type=Path)
    weights = next(map(str, sorted((SHARED / "weights").glob("*.pth"))), "demo")
    parser.add_argument("--weights", default=weights)
    parser.add_argument("--json", type=Path, default=RESULTS / "pack.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mission9-bench-") as scratch:
        figures = measure(arguments, Path(scratch))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.json, (json.dumps(asdict(figures), indent=2, ensure_ascii=False) + "\n").encode())
    print(
        f"{figures.count:,} images: read {figures.ratio_of_reading:.1f} times, extracted "
        f"{figures.ratio_of_extraction:.2f} times as fast from the pack; differences {figures.largest_difference}"
    )
    return 0 if figures.same_rows and figures.largest_difference < 1e-4 else 1


def measure(arguments: argparse.Namespace, work: Path) -> Figures:
    machine = this_machine()
    source, called = images_at_hand(arguments.images, SHARED / "fruits-360", work)
    tree = make_tree(source, jpegs(source), arguments.count, work / "images")
    with s3_server(work / "server") as server:
        os.environ.update(server.environment)
        server.make_bucket(BUCKET)
        print(f"{server.upload(tree, BUCKET, 'images'):,} images uploaded", flush=True)
        return compare(arguments, work, Setting(machine, called))


class Setting(NamedTuple):
    """What is measured on."""

    machine: Machine
    images: str


def compare(arguments: argparse.Namespace, work: Path, setting: Setting) -> Figures:
    places = {"objects": f"s3://{BUCKET}/images", "pack": f"s3://{BUCKET}/pack"}
    start = time.perf_counter()
    report = make_pack(places["objects"], places["pack"])
    pack_seconds = time.perf_counter() - start
    passes: dict[str, list[Pass]] = {name: [] for name in places}
    for _ in range(arguments.passes):
        for name, place in places.items():
            passes[name].append(one_pass(place))
            print(f"{name}: {passes[name][-1]}", flush=True)
    ways = {}
    for name, place in places.items():
        wall, told = timed_run(place, work / name, arguments.weights)
        ways[name] = Way(
            objects=report.parts if name == "pack" else report.listed,
            passes=passes[name],
            extract_seconds=told["seconds"]["extract"],
            wall=wall,
            rows=sum(split["featured"] for split in told["splits"].values()),
        )
    same_rows, difference = differences(work / "objects", work / "pack")
    return Figures(
        machine=setting.machine,
        images=setting.images,
        count=report.listed,
        total_bytes=report.bytes,
        command=" ".join(["mission9 run", *OPTIONS]),
        pack_seconds=pack_seconds,
        objects=ways["objects"],
        pack=ways["pack"],
        ratio_of_reading=median_rate(ways["pack"]) / median_rate(ways["objects"]),
        ratio_of_extraction=ways["objects"].extract_seconds / ways["pack"].extract_seconds,
        largest_difference=difference,
        same_rows=same_rows,
    )


def one_pass(place: str) -> Pass:
    """List, and read everything once, as a worker reads ahead; the source knows nothing from before."""
    open_source.cache_clear()
    start = time.perf_counter()
    rows = [Row(*row) for batch in list_images(place, ListingCounts()) for row in zip(*columns(batch), strict=True)]
    listed = time.perf_counter()
    source = open_source(resolve_root(place))
    lengths = prefetch_map(rows, lambda row: len(source.read(row.path, max_bytes=2**28)), source.ahead)
    if sum(lengths) != sum(row.size for row in rows):
        raise ChildFailed(f"not all bytes came from {place}")
    return Pass(list_seconds=listed - start, read_rate=len(rows) / (time.perf_counter() - listed))


class Row(NamedTuple):
    """An image and its length."""

    path: str
    size: int


def columns(batch: Any) -> list[list[Any]]:
    return [batch["path"].to_pylist(), batch["bytes"].to_pylist()]


def timed_run(place: str, output: Path, weights: str) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole process, and its run.json."""
    command = [sys.executable, "-m", "mission9", "run", "--input", place, "--output", str(output), *OPTIONS]
    done = run_command([*command, "--weights", weights], environment=dict(os.environ))
    if done.failure:
        raise ChildFailed(done.failure)
    return done.wall, json.loads((output / "run.json").read_bytes())


def differences(one: Path, other: Path) -> tuple[bool, float]:
    """Tell whether two results are of the same images, and how far their features are apart at most."""
    tables = [pq.read_table(place / "features").sort_by("path") for place in (one, other)]
    names = ["path", "split", "label", "sha256", "bytes"]
    same = tables[0].select(names).equals(tables[1].select(names))
    return same, float(np.abs(vectors(tables[0]["features"]) - vectors(tables[1]["features"])).max()) if same else 1e9


def median_rate(way: Way) -> float:
    return statistics.median(one.read_rate for one in way.passes)


if __name__ == "__main__":
    sys.exit(main())
