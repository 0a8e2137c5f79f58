from __future__ import annotations

import signal
import subprocess
import sys

import pytest

WORKER = """
import os, signal, sys, time
from mission9 import watch
if sys.argv[1] == "works":
    watch.look_after(os.getpid(), 2.0)
    print("works", flush=True)
    time.sleep(600)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_that_is_stopped_before_its_first_task_is_noticed_by_another() -> None:
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, what], stdout=-1) for what in ("works", "is stopped")]
    other = subprocess.Popen(["sleep", "600"])  # whatever else its parent has started
    try:
        other.send_signal(signal.SIGSTOP)
        assert workers[1].wait(60) == -signal.SIGKILL
        assert workers[0].poll() is None
        assert other.poll() is None
    finally:
        for process in (*workers, other):
            process.kill()
            process.communicate()
