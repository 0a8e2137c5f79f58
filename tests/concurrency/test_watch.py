from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mission9.storage.local.read_bytes import read_bytes

WORKER = """
import os, signal, sys, time
from mission9.concurrency import watchdog
if sys.argv[1] == "works":
    watchdog.look_after(os.getpid(), 2.0)
    print("works", flush=True)
    time.sleep(600)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.slow
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


def test_each_piece_of_a_large_file_is_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signs: list[None] = []
    monkeypatch.setattr("mission9.storage.local.read_bytes.progress", lambda: signs.append(None))
    content = bytes(range(256)) * (1 << 17)  # 32 MB
    (tmp_path / "large").write_bytes(content)
    assert read_bytes(bytes(tmp_path / "large"), max_bytes=len(content)) == content
    assert len(signs) == 2
