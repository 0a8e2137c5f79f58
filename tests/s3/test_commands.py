"""Whole commands, as a user gives them: killed, at once, over a bad network, with secrets in the environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.s3.conftest import Bucket
from tests.s3.faulty import Faults, faulty_server
from tests.s3.test_run import assert_same, local_run

RUN = [sys.executable, "-m", "mission9", "run", "--weights", "demo", "--components", "5", "--no-report"]


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [*RUN, *arguments]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    words, _ = process.communicate(timeout=900)
    assert process.returncode == 0, words
    return words


def markers(bucket: Bucket) -> int:
    return len([key for key in bucket.keys if "/shards/" in key and key.endswith(".json")])


@pytest.mark.slow
@pytest.mark.parametrize("is_same_machine", [True, False])
def test_a_killed_run_goes_on_where_it_stopped(
    bucket: Bucket, sample: Path, tmp_path: Path, is_same_machine: bool
) -> None:
    arguments = ["--input", bucket.upload(sample), "--output", f"{bucket}/results", "--runner", "local"]
    first = start(*arguments)
    deadline = time.monotonic() + 120
    while not markers(bucket) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = markers(bucket)
    assert 0 < done < 4
    assert "results/run.json" not in bucket.keys
    cache = {} if is_same_machine else {"XDG_CACHE_HOME": str(tmp_path / "elsewhere")}
    finish(start(*arguments, **cache))
    report = json.loads(bucket.get("results/run.json"))
    assert 0 < report["images_inferred"] < 640
    assert_same(f"{bucket}/results", local_run(sample, tmp_path / "wanted"))


@pytest.mark.slow
def test_runs_that_are_killed_again_and_again_end_in_the_same(bucket: Bucket, sample: Path, tmp_path: Path) -> None:
    arguments = ["--input", bucket.upload(sample), "--output", f"{bucket}/results", "--runner", "local"]
    seen = set()
    for seconds in (4, 6, 8, 10, 12):  # in the middle of publishing, too
        process = start(*arguments)
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if "results/run.json" in bucket.keys:
            report = json.loads(bucket.get("results/run.json"))
            seen.add(report["run_id"])
            tables = f"results/{report['tables']}"
            assert f"{tables}/checksums.json" in bucket.keys  # whoever follows the pointer finds all of it
            for name in json.loads(bucket.get(f"{tables}/checksums.json")):
                assert f"{tables}/{name}" in bucket.keys
    finish(start(*arguments))
    assert_same(f"{bucket}/results", local_run(sample, tmp_path / "wanted"))
    verify = [sys.executable, "-m", "mission9", "verify", f"{bucket}/results"]
    assert subprocess.run(verify, capture_output=True, text=True, check=True).stdout == f"{bucket}/results is whole\n"


@pytest.mark.slow
def test_of_two_runs_at_once_one_is_refused(bucket: Bucket, sample: Path, tmp_path: Path) -> None:
    arguments = ["--input", bucket.upload(sample), "--output", f"{bucket}/results", "--runner", "local"]
    first = start(*arguments)
    deadline = time.monotonic() + 120
    while "results/_state/lock" not in bucket.keys and time.monotonic() < deadline:
        time.sleep(0.05)
    second = start(*arguments, XDG_CACHE_HOME=str(tmp_path / "elsewhere"))
    words, _ = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"mission9: another run is writing {bucket}/results" in words
    assert f'"pid": {first.pid}' in words
    finish(first)
    assert_same(f"{bucket}/results", local_run(sample, tmp_path / "wanted"))


@pytest.mark.slow
@pytest.mark.spark
def test_spark_gives_the_same(bucket: Bucket, sample: Path, tmp_path: Path) -> None:
    images = bucket.upload(sample)
    words = finish(
        start("--input", images, "--output", f"{bucket}/results", "--runner", "spark", "--master", "local[2]")
    )
    assert "images inferred in this run: 640" in words
    assert_same(f"{bucket}/results", local_run(sample, tmp_path / "wanted"))


@pytest.mark.slow
def test_a_bad_network_loses_and_doubles_nothing(
    bucket: Bucket, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, faults = bucket.upload(sample), Faults(slow_down=0.1, reset=0.02, lost=0.02, cut=0.03, slow=0.02)
    with faulty_server(bucket.server.port, faults) as url:
        finish(start("--input", images, "--output", f"{bucket}/results", "--runner", "local", AWS_ENDPOINT_URL=url))
    assert min(faults.counts[name] for name in ("slow_down", "reset", "lost", "cut", "slow")) > 3
    assert_same(f"{bucket}/results", local_run(sample, tmp_path / "wanted"))


@pytest.mark.slow
def test_secrets_are_told_to_nobody(bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--input", bucket.upload(tree), "--output", f"{bucket}/results", "--runner", "local"]
    told = finish(start(*arguments))
    for secret in ("planted-secret", "planted-token"):
        monkeypatch.setenv("AWS_SESSION_TOKEN" if "token" in secret else "AWS_SECRET_ACCESS_KEY", secret)
    failing = start(*arguments)
    words, _ = failing.communicate(timeout=60)
    assert failing.returncode == 2
    assert "does not accept the credentials of the environment" in words
    assert len([line for line in words.splitlines() if line.startswith("mission9: ")]) == 1
    secrets = ("planted-secret", "planted-token", bucket.server.environment["AWS_SECRET_ACCESS_KEY"] + '"')
    everything = [told.encode(), words.encode(), *(bucket.get(key) for key in bucket.keys)]
    assert not [secret for secret in secrets for text in everything if secret.encode() in text]
