"""Listing and planning alone, in a fresh process: seconds and memory.

python -m benchmarks.measure.listing IMAGES
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from benchmarks.measure.child import run_module

from mission9.extraction import SHARD_IMAGES
from mission9.stages.find_known import Known
from mission9.stages.list_images import Found, list_images
from mission9.stages.plan_shards import plan_shards


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Images found, shards planned; `before` is the process's RSS with all imported, `peak` its largest, in bytes."""

    images: int
    shards: int
    seconds: float
    before: int
    peak: int


def listed(images: Path) -> Listed:
    """Measured in a process of its own."""
    return Listed(**run_module("listing", str(images)))


def main() -> None:
    root = os.path.realpath(sys.argv[1])
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory(prefix="mission9-plan-") as folder:
        found, start = Found(), time.perf_counter()
        plan = plan_shards(list_images(root, found), Known(Path(folder)), Path(folder), SHARD_IMAGES["cpu"])
        seconds = time.perf_counter() - start
    told = Listed(
        images=found.listed.total(),
        shards=len(plan.shards),
        seconds=round(seconds, 3),
        before=before,
        peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    print(json.dumps(asdict(told)))


if __name__ == "__main__":
    main()
