"""Listing and planning alone, in a fresh process: seconds and memory.

python -m benchmarks.measure.listing IMAGES
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from benchmarks.measure.child import clean_environment, run_module
from benchmarks.measure.listed_bucket import PREFIX

from mission9.models.extraction import SHARD_IMAGES
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages.plan_shards import plan_shards
from mission9.stages.reuse import ReusableShards


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """Images found, shards planned; `before` is the process's RSS with all imported, `peak` its largest, in bytes."""

    images: int
    shards: int
    seconds: float
    before: int
    peak: int


def listed(images: str, environment: Mapping[str, str] | None = None) -> ObjectInfo:
    """Measured in a process of its own."""
    return ObjectInfo(**run_module("listing", images, environment=environment))


def listed_in_bucket(images: int, folder_images: int) -> ObjectInfo:
    """The same of a bucket with so many keys in all, and below a prefix."""
    command = [sys.executable, "-m", "benchmarks.measure.listed_bucket", str(images), str(folder_images)]
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as server:
        assert server.stdout is not None  # noqa: S101 (for mypy)
        address = server.stdout.readline().strip()
        environment = {"AWS_ENDPOINT_URL": address, "AWS_REGION": "eu-west-3", "AWS_SKIP_SIGNATURE": "true"}
        try:
            return listed(f"s3://bucket/{PREFIX.partition('/')[0]}", environment)
        finally:
            server.communicate("")


def peak_rss() -> int:
    """The largest RSS of this process, in bytes; what `getrusage` tells may be that of whoever started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    root = find_root(sys.argv[1])
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory(prefix="mission9-plan-") as folder:
        found, start = ListingCounts(), time.perf_counter()
        plan = plan_shards(list_images(root, found), ReusableShards(Path(folder)), Path(folder), SHARD_IMAGES["cpu"])
        seconds = time.perf_counter() - start
    told = ObjectInfo(
        images=found.listed.total(),
        shards=len(plan.shards),
        seconds=round(seconds, 3),
        before=before,
        peak=peak_rss(),
    )
    print(json.dumps(asdict(told)))


if __name__ == "__main__":
    main()
