"""120 real photographs with real weights: a folder and worker processes, a bucket, a cluster, Spark Connect."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mission9.results.verify import verify_output
from mission9.schema import vectors
from tests.conftest import REAL_WEIGHTS, SHARED
from tests.s3.conftest import Bucket
from tests.s3.test_run import assert_same, tables_of
from tests.support.cluster import MEMORY, Cluster, connect_server

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.spark]


@pytest.fixture
def masters(bucket: Bucket, tmp_path: Path) -> Iterator[dict[str, list[str]]]:
    """The options that choose the runner; servers are started in an environment that leads to the bucket."""
    pytest.importorskip("grpc", reason="Spark Connect's packages are not installed")
    for name in ("cluster", "connect"):
        (tmp_path / name).mkdir()
    with Cluster(tmp_path / "cluster") as cluster, connect_server(tmp_path / "connect") as connect:
        yield {
            "worker processes": ["--runner", "local", "--workers", "2"],
            "local[2]": ["--master", "local[2]"],
            "standalone": ["--master", cluster.master],
            "Connect": ["--master", connect],
        }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Of each of the forty labels two images of Training and one of Test."""
    for split, count in (("Training", 2), ("Test", 1)):
        for label in (SHARED / "fruits-360" / split).iterdir():
            there = tmp_path / "images" / split / label.name
            there.mkdir(parents=True)
            for image in sorted(label.iterdir())[:count]:
                shutil.copy2(image, there)
    return tmp_path / "images"


def test_the_whole_flow_gives_the_same_tables_everywhere(
    bucket: Bucket, images: Path, masters: dict[str, list[str]], tmp_path: Path
) -> None:
    weights = str(REAL_WEIGHTS)
    wanted = str(tmp_path / "wanted")
    run(str(images), wanted, weights, masters["worker processes"])
    for name in ("standalone", "Connect"):
        run(str(images), str(tmp_path / name), weights, masters[name])
        told(f"folder, {name}", str(tmp_path / name), wanted)
    there = bucket.upload(images, "fruits-360")
    bucket.put("imagenet.pth", REAL_WEIGHTS.read_bytes())
    for number, (name, options) in enumerate(masters.items()):
        output = f"{bucket}/out{number}"
        run(there, output, f"{bucket}/imagenet.pth", options)
        told(f"bucket, {name}", output, wanted)
        assert not list(verify_output(output))


def run(images: str, output: str, weights: str, options: list[str]) -> None:
    command = [sys.executable, "-m", "mission9", "run", "--input", images, "--output", output, "--weights", weights]
    done = subprocess.run(
        [*command, "--no-report", *options], env=os.environ | MEMORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "images inferred in this run: 120\n" in done.stdout


def told(name: str, found: str, wanted: str) -> None:
    """Hold a result against another, and say how far they are apart."""
    assert_same(found, wanted)
    there, here = tables_of(found), tables_of(wanted)
    columns = [vectors(tables["features"]["features"]) for tables in (there, here)]
    apart = [f"{len(columns[0]):,} rows of features apart by {np.abs(columns[0] - columns[1]).max():.1e}"]
    for split, scores in there["scores"].items():
        largest = np.abs(scores.pca - here["scores"][split].pca).max()
        apart.append(f"{len(scores):,} scores of {split} by {largest:.1e}")
    print(f"{name}: {', '.join(apart)}, {len(there['rejects'])} rejects in both")
