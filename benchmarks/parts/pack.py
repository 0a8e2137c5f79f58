"""Gain of packing images once where they lie in a bucket: the same images as objects and as a pack, in turn.

The bucket is in an S3 server of this program's own on the loopback (OpenStack Swift). Images are listed and read, by
turns objects and pack, a few times, with nothing done to them; then `mission9 run` works through both, and their tables
are held against each other. A server on the loopback answers at once but works slowly; one far away does neither.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
from benchmarks.measure.child import ChildFailed
from benchmarks.measure.runs import mission9_run
from benchmarks.measure.sitting import Sitting
from benchmarks.parts import Figures, Part
from scripts.s3_server import s3_server

from mission9.concurrency.prefetch import prefetch_map
from mission9.pack.make_pack import make_pack
from mission9.schema import vectors
from mission9.sources import find_root, open_source
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts

IMAGES = 2000
BUCKET = "pack-benchmark"
OPTIONS = ("--runner", "local", "--no-report", "--components", "10")
LARGEST_DIFFERENCE = 1e-4

Json = dict[str, Any]


class Row(NamedTuple):
    """An image and its length."""

    path: str
    size: int


def run(sitting: Sitting) -> Figures:
    """Measure both ways; results that are not the same fail the benchmark."""
    tree = sitting.tree(sitting.options.count or IMAGES)
    with s3_server(sitting.work / "server") as server, patch.dict(os.environ, server.environment):
        server.make_bucket(BUCKET)
        sitting.say(f"{server.upload(tree, BUCKET, 'images'):,} images uploaded")
        figures = compare(sitting)
    if not figures["same_rows"] or figures["largest_difference"] >= LARGEST_DIFFERENCE:
        sitting.failures["pack"] = f"other results than of the objects, by {figures['largest_difference']}"
    return figures


def compare(sitting: Sitting) -> Figures:
    """Ratios are of medians, the pack's rate over the objects'; `largest_difference` is between any two features."""
    places = {"objects": f"s3://{BUCKET}/images", "pack": f"s3://{BUCKET}/pack"}
    start = time.perf_counter()
    report = make_pack(places["objects"], places["pack"])
    pack_seconds = time.perf_counter() - start
    passes: dict[str, list[Json]] = {name: [] for name in places}
    for _ in range(sitting.options.repeats):
        for name, place in places.items():
            passes[name].append(one_pass(place))
            sitting.say(f"{name}: {passes[name][-1]}")
    count = {"objects": report.listed, "pack": report.parts}
    ways: dict[str, Json] = {name: {"objects": count[name], "passes": passes[name]} for name in places}
    for name, place in places.items():
        ways[name] |= timed_run(place, sitting.work / name, sitting.weights)
    rates = {name: statistics.median(one["read_rate"] for one in passes[name]) for name in places}
    same_rows, difference = differences(sitting.work / "objects", sitting.work / "pack")
    return {
        "machine": asdict(sitting.machine),
        "images": sitting.called,
        "count": report.listed,
        "total_bytes": report.bytes,
        "command": " ".join(["mission9 run", *OPTIONS]),
        "pack_seconds": pack_seconds,
        **ways,
        "ratio_of_reading": rates["pack"] / rates["objects"],
        "ratio_of_extraction": ways["objects"]["extract_seconds"] / ways["pack"]["extract_seconds"],
        "largest_difference": difference,
        "same_rows": same_rows,
    }


def one_pass(place: str) -> Json:
    """List, and read everything once, as a worker reads ahead; the source knows nothing from before."""
    open_source.cache_clear()
    start = time.perf_counter()
    root = find_root(place)
    rows = [Row(*row) for batch in list_images(root, ListingCounts()) for row in zip(*columns(batch), strict=True)]
    listed = time.perf_counter()
    source = open_source(root)
    lengths = prefetch_map(rows, lambda row: len(source.read(row.path, max_bytes=2**28)), source.ahead)
    if sum(lengths) != sum(row.size for row in rows):
        raise ChildFailed(f"not all bytes came from {place}")
    return {"list_seconds": listed - start, "read_rate": len(rows) / (time.perf_counter() - listed)}


def columns(batch: Any) -> list[list[Any]]:
    return [batch["path"].to_pylist(), batch["bytes"].to_pylist()]


def timed_run(place: str, output: Path, weights: str) -> Json:
    environment = dict(os.environ)  # with the server's MISSION9_POLICY, which runs are made without elsewhere
    done, report = mission9_run([*OPTIONS, "--weights", weights], place, output, environment=environment)
    rows = sum(split["featured"] for split in report["splits"].values())
    return {"extract_seconds": report["seconds"]["extract"], "wall": done.wall, "rows": rows}


def differences(one: Path, other: Path) -> tuple[bool, float]:
    """Tell whether two results are of the same images, and how far their features are apart at most."""
    tables = [pq.read_table(place / "features").sort_by("path") for place in (one, other)]
    names = ["path", "split", "label", "sha256", "bytes"]
    same = tables[0].select(names).equals(tables[1].select(names))
    return same, float(np.abs(vectors(tables[0]["features"]) - vectors(tables[1]["features"])).max()) if same else 1e9


PACK = Part(name="pack", section="pack", run=run, is_long=True)
