"""A cluster of processes that share nothing but a bucket, and an estimate of what lies there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.pipeline.run import run
from mission9.results.verify import verify_output
from tests.s3.conftest import Bucket
from tests.s3.test_run import assert_same
from tests.scenarios.test_shipping import MAIN, environment, submit, wheel
from tests.support.cluster import Cluster
from tests.support.finished import write_fruits

__all__ = ["environment", "wheel"]  # fixtures


@pytest.mark.spark
@pytest.mark.slow
def test_by_spark_submit_from_bucket_to_bucket(
    wheel: Path,
    environment: Path,
    bucket: Bucket,
    tmp_path: Path,
) -> None:
    fruits = write_fruits(tmp_path / "fruits", varieties=4, training=20, test=10)
    images, there, here = bucket.upload(fruits), f"{bucket}/results", str(tmp_path / "here")
    facts = {"PYTHONPATH": "", "XDG_CACHE_HOME": str(tmp_path / "their cache")}
    with Cluster(tmp_path / "cluster", facts) as cluster:
        settings = ["--input", images, "--output", there, "--weights", "demo", "--components", "5", "--no-report"]
        done = submit(cluster, environment, "--py-files", wheel, MAIN, "run", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(verify_output(there)) == []
    run(RunConfig(input=str(fruits), output=here, weights="demo", components=5, runner="local", workers=2))
    assert_same(there, here)


@pytest.mark.slow
def test_images_in_a_bucket_are_probed(bucket: Bucket, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = bucket.upload(tree)
    assert main(["estimate", "--input", images, "--weights", "demo", "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith("probe: 15 of 15 images on 1 workers (cpu): ")
