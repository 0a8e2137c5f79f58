"""Whole commands, as a user gives them: killed, at once, over a bad network, with secrets in the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mission9.cli import main
from tests.s3.conftest import Bucket, new_cache
from tests.s3.faulty import Faults, Stop, faulty_server
from tests.s3.test_run import assert_same

pytestmark = pytest.mark.slow

IMAGES, SHARD = 96, 24
# Shards of a real run would need thousands of images.
SMALL_SHARDS = [
    *(sys.executable, "-c"),
    "from mission9 import cli; from mission9.models import extraction;"
    f"extraction.SHARD_IMAGES = {{'cpu': {SHARD}}}; cli.program()",
]
RUN = ["run", "--weights", "demo", "--components", "5", "--no-report", "--runner", "local"]
LIMIT = 400  # seconds, of which a command takes five


def start(*arguments: str, program: list[str] = SMALL_SHARDS, **environment: str) -> subprocess.Popen[str]:
    command = [*program, *RUN, *(() if "--workers" in arguments else ("--workers", "1")), *arguments]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    words, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, words
    return words


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def watched(bucket: Bucket, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket behind a server that can hold requests."""
    with faulty_server(bucket.server.port, faults) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield bucket
        if faults.stop is not None:
            faults.stop.lose()


def reach(stop: Stop, process: subprocess.Popen[str]) -> None:
    """Wait until a process makes the request that is held."""
    for _ in range(10 * LIMIT):
        if stop.reached.wait(0.1):
            return
        assert process.poll() is None, process.communicate()[0]
    raise TimeoutError("the request that is held does not come")


def killed_at(faults: Faults, is_here: Callable[[str, str], bool], *arguments: str, cache: str) -> None:
    """Start a run, and kill it when it makes the first such request, which does not reach the server."""
    faults.stop = Stop(is_here)
    process = start(*arguments, XDG_CACHE_HOME=cache)
    reach(faults.stop, process)
    process.kill()
    process.communicate(timeout=LIMIT)  # when its workers have ended, too
    faults.stop.lose()
    faults.stop = None


def is_marker(method: str, path: str) -> bool:
    return method == "PUT" and "/shards/" in path and path.endswith(".json")


def after(first: Callable[[str, str], bool], then: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
    """A predicate for requests that match `then`, after a first one that matched `first`."""
    seen: list[str] = []

    def is_here(method: str, path: str) -> bool:
        if seen:
            return then(method, path)
        if first(method, path):
            seen.append(path)
        return False

    return is_here


def markers(bucket: Bucket) -> int:
    return len([key for key in bucket.keys if is_marker("PUT", f"/{key}")])


def images_read(faults: Faults) -> int:
    return sum(count for what, count in faults.counts.items() if what.startswith("GET /fruits/images/"))


def is_of_plan(method: str, path: str) -> bool:
    return method == "PUT" and "/todo-" in path


def is_of_tables(method: str, path: str) -> bool:
    return method == "PUT" and "/results/runs/" in path


def is_pointer(method: str, path: str) -> bool:
    return method == "PUT" and path.endswith("/results/run.json")


def is_deletion(method: str, path: str) -> bool:
    return method == "POST" and "?delete" in path


def test_killed_runs_go_on_where_they_stopped_also_on_another_machine_and_end_in_the_same(
    watched: Bucket,
    faults: Faults,
    fruits_there: str,
    fruits_result: str,
    tmp_path: Path,
    notes: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, here = f"{watched}/results", os.environ["XDG_CACHE_HOME"]
    elsewhere = new_cache(tmp_path / "elsewhere", notes)
    arguments = ["--input", fruits_there, "--output", output]
    # Four shards; with the tables, the file that those of Training are gathered into, too.
    for told, cache, is_here, committed, read in (
        ("has the lock alone", here, is_of_plan, 0, 0),
        ("has a shard", here, after(is_marker, is_marker), 1, 2 * SHARD),
        ("has two, one of the run before", here, after(is_marker, is_marker), 2, 2 * SHARD),
        ("has a part of the tables", elsewhere, after(is_of_tables, is_of_tables), 5, 2 * SHARD),
        ("has all but the pointer to them", here, is_pointer, 5, 0),
        ("has yet to clear away what is old", elsewhere, after(is_pointer, is_deletion), 5, 0),
    ):
        before = images_read(faults)
        killed_at(faults, is_here, *arguments, cache=cache)
        assert markers(watched) == committed, told
        assert read <= images_read(faults) - before < read + SHARD // 2, told  # some are looked at beforehand
        assert ("results/run.json" in watched.keys) == told.startswith("has yet"), told
    report = json.loads(watched.get("results/run.json"))
    tables = f"results/{report['tables']}"
    assert f"{tables}/checksums.json" in watched.keys  # whoever follows the pointer finds all of it
    for name in json.loads(watched.get(f"{tables}/checksums.json")):
        assert f"{tables}/{name}" in watched.keys
    finish(start(*arguments))
    report = json.loads(watched.get("results/run.json"))
    assert report["images_inferred"] == 0
    assert {key.split("/")[2] for key in watched.keys if key.startswith("results/runs/")} == {report["run_id"]}
    assert_same(output, fruits_result)
    assert main(["verify", output]) == 0
    assert capsys.readouterr().out == f"{output} is whole\n"


def test_of_two_runs_at_once_one_is_refused(
    watched: Bucket, faults: Faults, fruits_there: str, fruits_result: str, tmp_path: Path, notes: Path
) -> None:
    arguments = ["--input", fruits_there, "--output", f"{watched}/results"]
    faults.stop = Stop(is_marker)
    first = start(*arguments)
    reach(faults.stop, first)
    second = start(*arguments, XDG_CACHE_HOME=new_cache(tmp_path / "elsewhere", notes))
    words, _ = second.communicate(timeout=LIMIT)
    assert second.returncode == 2
    assert f"mission9: another run is writing to {watched}/results" in words
    assert f'"pid": {first.pid}' in words
    faults.stop.go_on()
    finish(first)
    assert_same(f"{watched}/results", fruits_result)


def test_a_bad_network_loses_and_doubles_nothing(
    watched: Bucket, faults: Faults, fruits_there: str, fruits_result: str
) -> None:
    faults.slow_down, faults.reset, faults.lost, faults.cut, faults.slow = 0.1, 0.05, 0.05, 0.05, 0.05
    finish(start("--input", fruits_there, "--output", f"{watched}/results", "--workers", "2"))
    assert min(faults.counts[name] for name in ("slow_down", "reset", "lost", "cut", "slow")) > 3
    assert_same(f"{watched}/results", fruits_result)


def test_secrets_are_told_to_nobody(bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = [sys.executable, "-m", "mission9"]
    arguments = ["--input", bucket.upload(tree), "--output", f"{bucket}/results"]
    told = finish(start(*arguments, program=program))
    for secret in ("planted-secret", "planted-token"):
        monkeypatch.setenv("AWS_SESSION_TOKEN" if "token" in secret else "AWS_SECRET_ACCESS_KEY", secret)
    failing = start(*arguments, program=program)
    words, _ = failing.communicate(timeout=LIMIT)
    assert failing.returncode == 2
    assert "rejects the credentials of the environment" in words
    assert len([line for line in words.splitlines() if line.startswith("mission9: ")]) == 1
    secrets = ("planted-secret", "planted-token", bucket.server.environment["AWS_SECRET_ACCESS_KEY"] + '"')
    everything = [told.encode(), words.encode(), *(bucket.get(key) for key in bucket.keys)]
    assert not [secret for secret in secrets for text in everything if secret.encode() in text]
