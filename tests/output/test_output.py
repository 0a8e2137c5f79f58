"""The write lock of an output folder, and its content as readers see it during a run."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mission9.errors import InputError, OutputError
from mission9.output.open import output_at
from mission9.results.verify import verify_output
from tests.support.forks import Forks
from tests.support.readers import read_result

HOLDER = """
import sys, time
from mission9.output.open import output_at
with output_at(sys.argv[1]).open(overwrite=False):
    print("open", flush=True)
    time.sleep(600)
"""

WRITER = """
import json, sys
from mission9.output.open import output_at
for number in range(int(sys.argv[2])):
    with output_at(sys.argv[1]).open(overwrite=False) as output:
        for name in ("features", "pca_model", "training_pca"):
            (output.work / name).mkdir()
            (output.work / name / "number").write_text(str(number))
        output.publish(json.dumps({"run_id": number}).encode())
"""


# Five begin at the same moment, each in a fork; who wins is held up until the others have ended. Prints a line of JSON
# for each: its number as a process, its exit code and what it told.
RACE = """
import json, os, sys, time
from pathlib import Path
from mission9 import pipeline
from mission9.cli import program
from mission9.stages.extract_shard import ExtractShards

place, *words = sys.argv[1:]
sys.argv[1:] = words


class Patient(ExtractShards):
    def __call__(self, number):
        while not Path(place, "others ended").exists():
            time.sleep(0.01)
        return super().__call__(number)


pipeline.ExtractShards = Patient
begin, wait = os.pipe(), {}
for number in range(5):
    child = os.fork()
    if not child:
        os.close(begin[1])
        os.dup2(os.open(f"{place}/{number}", os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(2, 1)
        os.read(begin[0], 1)  # until it is closed
        program()
    wait[child] = number
os.close(begin[1])
while wait:
    child, status = os.wait()
    told = Path(place, str(wait.pop(child))).read_text()
    print(json.dumps([child, os.waitstatus_to_exitcode(status), told]))
    if len(wait) == 1:
        Path(place, "others ended").touch()
"""


def process(script: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, str(folder), *more], stdout=subprocess.PIPE, text=True)


def test_the_second_run_names_the_first_and_the_lock_of_one_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    with process(HOLDER, tmp_path / "out") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with (
            pytest.raises(OutputError, match=f"another run .*{socket.gethostname()}.*{holder.pid}.*since"),
            output_at(str(tmp_path / "out")).open(overwrite=False),
        ):
            pass
        holder.kill()
    with output_at(str(tmp_path / "out")).open(overwrite=False) as output:
        assert json.loads((output.state / "lock").read_text())["pid"] == os.getpid()


def test_a_run_that_has_just_begun_is_named_and_not_one_that_was_killed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.storage.local.lock._SAY_WHO", 60)
    lock_file = tmp_path / "out" / "_state" / "lock"
    lock_file.parent.mkdir(parents=True)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    lock_file.write_text(json.dumps({"host": socket.gethostname(), "pid": int(dead.stdout), "since": "long ago"}))
    with lock_file.open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def say_who() -> None:
            lock.truncate(0)
            lock.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": "now"}))
            lock.flush()

        soon = threading.Timer(0.2, say_who)
        soon.start()
        with (
            pytest.raises(OutputError, match=f"{os.getpid()}.*now"),
            output_at(str(tmp_path / "out")).open(overwrite=True),
        ):
            pass
        soon.join()


def test_a_lock_that_was_taken_away_with_its_folder_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run's request turned out to be impossible just when this one had opened the lock."""
    first = output_at(str(tmp_path / "out")).open(overwrite=False)
    first.__enter__()
    flock = fcntl.flock

    def late(*arguments: int) -> None:
        monkeypatch.undo()
        assert first.__exit__(InputError, InputError("no images"), None) is False
        flock(*arguments)

    monkeypatch.setattr("mission9.storage.local.lock.fcntl.flock", late)
    with output_at(str(tmp_path / "out")).open(overwrite=False):
        assert not (tmp_path / "out" / "run.json").exists()
        with pytest.raises(OutputError, match="another run"), output_at(str(tmp_path / "out")).open(overwrite=False):
            pass


def test_readers_see_one_result_while_others_are_published(tmp_path: Path) -> None:
    def numbers(folder: Path) -> set[int]:
        return {int((folder / name / "number").read_text()) for name in ("training_pca", "pca_model", "features")}

    seen: set[int] = set()
    with process(WRITER, tmp_path / "out", "60") as writer:
        while writer.poll() is None or not seen:
            report, found = read_result(tmp_path / "out", numbers)
            assert found == {json.loads(report)["run_id"]}
            seen |= found
        assert writer.returncode == 0
    assert len(seen) > 1
    assert not (tmp_path / "out" / "_state" / "trash").exists()


@pytest.mark.slow
def test_of_five_starts_at_once_one_wins(tree: Path, tmp_path: Path) -> None:
    with Forks() as forks:
        for number in range(3):
            output, place = tmp_path / f"out {number}", tmp_path / f"told {number}"
            place.mkdir()
            command = ["run", "--input", str(tree), "--output", str(output), "--weights", "demo", "--components", "3"]
            done = forks.run(str(place), *command, "--no-report", code=RACE)
            assert done.returncode == 0, done.stderr
            *refused, (winner, code, told) = map(json.loads, done.stdout.splitlines())
            assert code == 0, told
            who = rf'"host": "{socket.gethostname()}", "pid": {winner}, "since": "\d{{4}}-\d\d-\d\d '
            for _, other_code, words in refused:
                assert other_code == 2, words
                assert re.search(f"another run is writing .*{who}", words), (winner, words)
            assert len(refused) == 4
            assert list(verify_output(str(output))) == []
