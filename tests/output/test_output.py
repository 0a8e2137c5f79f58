"""Who may write an output folder, and what its readers see meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from benchmarks.measure.races import race_of_starts
from benchmarks.measure.readers import read_result

from mission9.errors import InputError, OutputError
from mission9.output.open_output import open_output

HOLDER = """
import sys, time
from mission9.output.open_output import open_output
with open_output(sys.argv[1], overwrite=False):
    print("open", flush=True)
    time.sleep(600)
"""

WRITER = """
import json, sys
from mission9.output.open_output import open_output
for number in range(300):
    with open_output(sys.argv[1], overwrite=False) as output:
        for name in ("features", "pca_model", "training_pca"):
            (output.work / name).mkdir()
            (output.work / name / "number").write_text(str(number))
        output.publish(json.dumps({"run_id": number}).encode())
"""


def process(script: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)


def test_the_second_run_names_the_first_and_the_lock_of_one_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    with process(HOLDER, tmp_path / "out") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with (
            pytest.raises(OutputError, match=f"another run .*{socket.gethostname()}.*{holder.pid}.*since"),
            open_output(str(tmp_path / "out"), overwrite=False),
        ):
            pass
        holder.kill()
    with open_output(str(tmp_path / "out"), overwrite=False) as output:
        assert json.loads((output.state / "lock").read_text())["pid"] == os.getpid()


def test_a_run_that_has_just_begun_is_named_and_not_one_that_was_killed_before(tmp_path: Path) -> None:
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
            open_output(str(tmp_path / "out"), overwrite=True),
        ):
            pass
        soon.join()


def test_a_lock_that_was_taken_away_with_its_folder_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run's request turned out to be impossible just when this one had opened the lock."""
    first = open_output(str(tmp_path / "out"), overwrite=False)
    first.__enter__()
    flock = fcntl.flock

    def late(*arguments: int) -> None:
        monkeypatch.undo()
        assert first.__exit__(InputError, InputError("no images"), None) is False
        flock(*arguments)

    monkeypatch.setattr("mission9.disk.folder_lock.fcntl.flock", late)
    with open_output(str(tmp_path / "out"), overwrite=False):
        assert not (tmp_path / "out" / "run.json").exists()
        with pytest.raises(OutputError, match="another run"), open_output(str(tmp_path / "out"), overwrite=False):
            pass


def test_readers_see_one_result_while_others_are_published(tmp_path: Path) -> None:
    def numbers(folder: Path) -> set[int]:
        return {int((folder / name / "number").read_text()) for name in ("training_pca", "pca_model", "features")}

    seen: set[int] = set()
    with process(WRITER, tmp_path / "out") as writer:
        while writer.poll() is None or not seen:
            report, found = read_result(tmp_path / "out", numbers)
            assert found == {json.loads(report)["run_id"]}
            seen |= found
        assert writer.returncode == 0
    assert len(seen) > 1
    assert not (tmp_path / "out" / "_state" / "trash").exists()


@pytest.mark.slow
def test_of_five_starts_at_once_one_wins(sample: Path, tmp_path: Path) -> None:
    for number in range(2):
        output = tmp_path / f"{number}"
        command = [sys.executable, "-m", "mission9", "run", "--input", str(sample), "--output", str(output)]
        race = race_of_starts([*command, "--runner", "local", "--weights", "demo", "--components", "5"])
        assert race.problems == []
        assert race.codes.count(0) == 1
