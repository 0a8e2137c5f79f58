from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mission9.storage.local.scratch import scratch_folder

HELD = """
import sys, time
from mission9.storage.local.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "names").write_text("Training/Alice/1.jpg")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def held(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD], stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))
    return process, folder


def test_what_a_killed_process_left_goes_and_what_another_holds_stays(temporary: Path) -> None:
    killed, left = held(temporary)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    working, kept = held(temporary)
    with working:
        try:
            with scratch_folder() as folder:
                assert not left.exists()
                assert (kept / "names").exists()
                assert folder.stat().st_mode & 0o777 == 0o700
            assert not folder.exists()
        finally:
            working.kill()


def test_what_others_put_in_its_place_is_let_alone(temporary: Path, tmp_path: Path) -> None:
    (temporary / "mission9-work-file").write_text("")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (temporary / "mission9-work-link").symlink_to(elsewhere)
    os.utime(temporary / "mission9-work-link", (0, 0), follow_symlinks=False)
    with scratch_folder():
        assert (temporary / "mission9-work-file").exists()
        assert elsewhere.exists()
