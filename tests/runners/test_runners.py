from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from mission9.concurrency.watchdog import Patience, progress, watched
from mission9.config import RunConfig
from mission9.errors import DeviceError, StorageError, TaskError
from mission9.runners.background import BackgroundRunner
from mission9.runners.base import InProcessRunner, Runner
from mission9.runners.factory import works_elsewhere
from mission9.runners.local import LocalRunner
from tests.support.held_up import wait_until

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


SPARK = (pytest.mark.spark, pytest.mark.xdist_group("spark"))


@pytest.fixture(params=[pytest.param("spark", marks=SPARK), "local"])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    if request.param == "spark":
        from mission9.runners.spark import SparkRunner

        yield SparkRunner(request.getfixturevalue("spark"), 2)
    else:
        with LocalRunner(2) as local:
            yield local


def test_results_come_in_order_of_number(runner: Runner) -> None:
    assert runner.map(lambda number: str(number).encode(), 10) == [str(n).encode() for n in range(10)]
    assert runner.map(bytes, 0) == []


def test_a_failing_task_is_told_by_its_own_error(runner: Runner) -> None:
    def task(number: int) -> bytes:
        raise ValueError(f"number {number} is wrong")

    with pytest.raises(TaskError, match="^a (Spark )?task failed: ValueError: number 0 is wrong$"):
        runner.map(task, 1)


def test_workers_that_have_grown_are_replaced_without_a_word() -> None:
    def grows(number: int) -> bytes:
        from loky import process_executor

        process_executor._MEMORY_LEAK_CHECK_DELAY, process_executor._MAX_MEMORY_LEAK_SIZE = -1.0, -(2**40)
        return str(os.getpid()).encode()

    with warnings.catch_warnings(record=True) as told, LocalRunner(1) as local:
        warnings.simplefilter("always")
        workers = set(local.map(grows, 12))
    assert len(workers) > 1
    assert [str(warning.message) for warning in told] == []


def test_a_ctrl_c_is_not_hidden_by_the_error_that_pyspark_meets_on_its_way_out() -> None:
    class Session:  # what PySpark does when the JVM is busy at the wrong moment, which no test can choose
        def range(self, *_: int) -> Session:
            return self

        def mapInArrow(self, *_: object) -> Session:  # noqa: N802 - Spark's name
            return self

        def collect(self) -> list[object]:
            try:
                raise KeyboardInterrupt
            finally:
                raise ConnectionError("Answer from Java side is empty")

    from mission9.runners.spark import SparkRunner

    with pytest.raises(KeyboardInterrupt):
        SparkRunner(Session(), 2).map(bytes, 1)  # type: ignore[arg-type]


def test_a_task_that_fails_once_is_tried_again(runner: Runner, tmp_path: Path) -> None:
    def task(number: int) -> bytes:
        mark = tmp_path / f"{number}"
        if not mark.exists():
            mark.touch()
            raise OSError("the disk was busy")
        return b"done"

    assert runner.map(task, 2) == [b"done"] * 2


def test_a_worker_whose_gpu_failed_ends_and_another_goes_on(runner: Runner, tmp_path: Path) -> None:
    failed = tmp_path / "failed"

    def task(_: int) -> bytes:
        if not failed.exists():
            failed.write_text(str(os.getpid()))
            raise DeviceError("cuda:0 failed: CUDA error: unspecified launch failure")
        return str(os.getpid()).encode()

    assert runner.map(task, 1) != [failed.read_bytes()]
    assert not Path(f"/proc/{failed.read_text()}").exists()


def test_after_a_disk_that_is_full_no_other_task_is_begun(tmp_path: Path) -> None:
    def task(number: int) -> bytes:
        if number == 0:
            raise OSError(errno.ENOSPC, "No space left on device", "table.parquet")
        (tmp_path / str(number)).touch()
        time.sleep(0.1)
        return b""

    with pytest.raises(StorageError, match="not enough space for table.parquet"), LocalRunner(1) as runner:
        runner.map(task, 1000)
    assert len(list(tmp_path.iterdir())) < 900  # on a busy machine the end of the first is heard of late


def test_a_worker_that_dies_once_costs_a_try_and_nothing_else(runner: Runner, tmp_path: Path) -> None:
    def task(number: int) -> bytes:
        import os

        mark = tmp_path / f"{number}"
        if number == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        return b"done"

    assert runner.map(task, 4) == [b"done"] * 4


def test_a_worker_that_dies_when_it_has_nothing_to_do_is_replaced() -> None:
    import os

    with LocalRunner(2) as runner:
        (worker, *_) = runner.map(lambda _: str(os.getpid()).encode(), 2)
        os.kill(int(worker), 9)
        wait_until(lambda: runner._pool is not None and runner._pool._flags.broken)  # the pool has noticed
        assert runner.map(lambda number: str(number).encode(), 4) == [b"0", b"1", b"2", b"3"]


# A worker that does its work shows progress sooner, on a machine that is busy too.
PATIENCE = Patience(hang=10, stop=2)


@pytest.fixture(params=[pytest.param("spark", marks=SPARK), "local"])
def impatient(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """A runner that soon gives up a worker that hangs or is stopped."""
    if request.param == "spark":
        from mission9.runners.spark import SparkRunner

        yield SparkRunner(request.getfixturevalue("spark"), 2, patience=PATIENCE)
    else:
        with LocalRunner(2, patience=PATIENCE) as local:
            yield local


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(impatient: Runner, tmp_path: Path) -> None:
    def task(number: int) -> bytes:
        import ctypes

        mark = tmp_path / f"{number}"
        if number == 1 and not mark.exists():
            mark.touch()
            ctypes.PyDLL(None).pause()  # in C, without letting go of the interpreter
        return b"done"

    assert impatient.map(task, 4) == [b"done"] * 4


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_replaced(impatient: Runner, tmp_path: Path) -> None:
    def task(number: int) -> bytes:
        import os
        import signal

        mark = tmp_path / f"{number}"
        if number == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return b"done"

    assert impatient.map(task, 4) == [b"done"] * 4


@pytest.mark.slow
def test_a_worker_that_is_stopped_between_two_stages_is_replaced(impatient: Runner) -> None:
    def process(number: int) -> bytes:
        import time

        time.sleep(0.2)
        return str(os.getpid()).encode()

    os.kill(int(impatient.map(process, 2)[0]), signal.SIGSTOP)
    assert len(impatient.map(process, 4)) == 4


def test_a_task_that_gets_on_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: what a busy machine makes of a real one is no matter of progress."""
    now, ends_at = 0.0, math.inf

    def arm(limit: float, *, exit: bool, file: int) -> None:  # noqa: A002 - faulthandler's name
        nonlocal ends_at
        assert exit
        ends_at = now + limit

    def disarm() -> None:
        nonlocal ends_at
        ends_at = math.inf

    alarm = SimpleNamespace(dump_traceback_later=arm, cancel_dump_traceback_later=disarm)
    monkeypatch.setattr("mission9.concurrency.watchdog.faulthandler", alarm)
    monkeypatch.setattr("mission9.concurrency.watchdog.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("mission9.concurrency.watchdog.look_after", lambda *_: None)
    with watched(Patience(hang=5, stop=2)):
        for _ in range(70):
            now += 0.1
            progress()
            assert now < ends_at
        assert 5 < ends_at - 6 < 6.01  # five seconds from a moment ago, of which it does not take note each time
    assert ends_at == math.inf


@pytest.mark.slow
def test_a_worker_that_gets_on_may_take_longer(tmp_path: Path) -> None:
    """Of real seconds so many that no machine is too busy to show progress in the meantime."""

    def task(number: int) -> bytes:
        import tempfile
        import time

        tempfile.mkstemp(dir=tmp_path)
        for _ in range(25):
            time.sleep(0.5)
            progress()
        return b"done"

    with LocalRunner(2, patience=Patience(hang=10, stop=2)) as runner:
        assert runner.map(task, 2) == [b"done"] * 2
    assert len(os.listdir(tmp_path)) == 2


def test_a_users_own_process_is_never_ended() -> None:
    from mission9.concurrency.watchdog import _Alarm

    assert InProcessRunner().map(lambda _: str(_Alarm.limit).encode(), 1) == [b"0.0"]


def test_a_run_that_is_stopped_as_a_whole_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    workers = tmp_path / "workers"
    workers.mkdir()
    script = SCRIPT.replace("LocalRunner(2)", "LocalRunner(2, patience=Patience(hang=60, stop=2))")
    command = [sys.executable, "-c", script, str(workers), str(tmp_path / "go on")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        wait_until(lambda: process.poll() is not None or len(os.listdir(workers)) == 2)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGSTOP)  # as Ctrl-Z does
        time.sleep(3)  # longer than one of them alone may be stopped
        os.killpg(process.pid, signal.SIGCONT)
        (tmp_path / "go on").touch()
        assert process.communicate()[0] == b"[b'done', b'done']\n"
    assert len(os.listdir(workers)) == 2  # names of processes


def test_many_workers_may_die_as_long_as_the_run_gets_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(number: int) -> bytes:
        mark = tmp_path / f"{number}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return b"done"

    monkeypatch.setattr("mission9.runners.local._ATTEMPTS", 2)  # fewer than workers die
    with LocalRunner(1) as runner:
        assert runner.map(task, 3) == [b"done"] * 3


@pytest.mark.parametrize("partitions", [1, 3])
def test_partitions_of_spark_share_the_tasks(partitions: int, spark: SparkSession) -> None:
    from mission9.runners.spark import SparkRunner

    runner = SparkRunner(spark, 2, partitions=partitions)
    assert runner.map(lambda number: str(number).encode(), 10) == [str(n).encode() for n in range(10)]


def test_a_task_that_always_kills_its_worker_fails_in_the_end() -> None:
    def task(number: int) -> bytes:
        os._exit(3)

    with LocalRunner(1) as runner, pytest.raises(TaskError, match="worker processes died 4 times"):
        runner.map(task, 1)


def test_local_workers_are_kept_and_have_one_thread(tmp_path: Path) -> None:
    def facts(number: int, folder: Path) -> bytes:
        (folder / str(os.getpid())).touch()
        wait_until(lambda: len(os.listdir(folder)) == 2)  # so that neither is done before the other has begun
        return f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}".encode()

    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with LocalRunner(2) as runner:
        first, second = (runner.map(partial(facts, folder=folder), 8) for folder in folders)
    assert set(first) == set(second)
    assert len(set(first)) == 2
    assert all(fact.endswith(b" 1") for fact in first)
    assert not any(fact.startswith(str(os.getpid()).encode()) for fact in first)


def test_in_process_is_this_process() -> None:
    assert InProcessRunner().map(lambda number: f"{number} {os.getpid()}".encode(), 1) == [f"0 {os.getpid()}".encode()]


# Each task notes its process in a folder, and ends when a file is there.
SCRIPT = """
import os, sys, time
from mission9.concurrency.watchdog import Patience
from mission9.runners.local import LocalRunner

folder, end = sys.argv[1:]

def task(number):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    while not os.path.exists(end):
        time.sleep(0.05)
    return b"done"

with LocalRunner(2) as runner:
    print(runner.map(task, 2))
"""


@pytest.mark.parametrize(
    ("settings", "variable", "elsewhere"),
    [
        ({}, None, False),
        ({"master": "local[2]"}, None, False),
        ({"master": "spark://far:7077"}, None, True),
        ({}, "PYSPARK_GATEWAY_PORT", True),
        ({}, "DATABRICKS_RUNTIME_VERSION", True),
        ({"runner": "local"}, "PYSPARK_GATEWAY_PORT", False),
        ({"master": "local"}, "PYSPARK_GATEWAY_PORT", False),
    ],
)
def test_where_workers_are(
    settings: dict[str, str], variable: str | None, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    assert works_elsewhere(RunConfig(**settings)) == elsewhere


def test_a_script_needs_no_guard_around_its_main_part(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[b'done', b'done']\n", done.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_gave_out_the_tasks(how: signal.Signals, tmp_path: Path) -> None:
    workers = tmp_path / "workers"
    workers.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(workers), str(tmp_path / "never")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: process.poll() is not None or len(os.listdir(workers)) == 2)
        assert process.poll() is None
        process.send_signal(how)
    wait_until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in os.listdir(workers)))


def test_a_runner_in_the_background_starts_once_and_ends_with_its_context() -> None:
    config = RunConfig(runner="local", workers=1)
    with BackgroundRunner(config) as background:
        background.begin()
        runner = background.get()
        assert background.get() is runner
        (worker,) = runner.map(lambda _: str(os.getpid()).encode(), 1)
        background.end()
    with pytest.raises(ProcessLookupError):
        os.kill(int(worker), 0)


def test_a_given_runner_stays_its_givers() -> None:
    given = InProcessRunner()
    with BackgroundRunner(RunConfig(), given) as background:
        assert background.get() is given


def test_what_keeps_a_runner_from_starting_is_told_when_it_is_asked_for() -> None:
    code = """
from mission9.config import RunConfig
from mission9.errors import SetupError
from mission9.runners.background import BackgroundRunner
with BackgroundRunner(RunConfig(runner="spark")) as background:
    background.begin()
    try:
        background.get()
    except SetupError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Spark needs Java")
