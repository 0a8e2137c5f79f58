"""The servers that our commands start: on the loopback, and for whoever has the password."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.support.cluster import free_port

PASSWORD = "a password for 100% of this"

# MLflow's pages, with another server in their place: one with a worker, which is told to whoever asks as its log is.
WITH_ANOTHER = """
import sys
from scripts import mlflow_ui
sys.argv[0] = mlflow_ui.__file__
worker = "import time; time.sleep(600)"
server = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
mlflow_ui.command = lambda *_: [sys.executable, "-c", server]
sys.exit(mlflow_ui.main())
"""


@contextmanager
def pages(tmp_path: Path, *program: str, **more: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port of MLflow's pages, as `make mlflow-ui` starts them, and the program."""
    port = free_port()
    command = [sys.executable, *program, "--port", str(port), "--folder", str(tmp_path)]
    (tmp_path / "temporary").mkdir()
    hears = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)  # noqa: E731 (under nohup, these tests would not)
    settings = os.environ | {"MLFLOW_UI_PASSWORD": PASSWORD, "TMPDIR": str(tmp_path / "temporary")} | more
    with (
        (tmp_path / "server.log").open("w") as told,
        subprocess.Popen(
            command, stdout=told, stderr=told, env=settings, start_new_session=True, preexec_fn=hears
        ) as process,
    ):
        try:
            yield port, process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert is_so()


def status(port: int, path: str, password: str | None = None, host: str = "127.0.0.1") -> int:
    """The HTTP status of the server's answer; 0 for none."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": f"{host}:{port}"})
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"mission9:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def works_in(folder: Path) -> list[psutil.Process]:
    """The processes whose folder it is, as it is that of the server and all its workers."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += [process] if process.cwd() == str(folder) else []
    return found


def end(program: subprocess.Popen[bytes], number: signal.Signals, folder: Path) -> None:
    """See that a signal ends the pages, with their workers and what they keep of the password."""
    (kept,) = (folder / "temporary").glob("mission9-mlflow-*/auth.ini")
    assert "100%% of this" in kept.read_text()
    try:
        os.kill(program.pid, number)
        assert program.wait(120) == 128 + number
        assert not kept.parent.exists()
        wait_until(lambda: not works_in(folder))  # those that were killed take a moment
    finally:
        for process in works_in(folder):
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflows_pages_are_for_whoever_has_the_password_and_leave_nothing(tmp_path: Path) -> None:
    # Without the jobs that MLflow's server would do: nobody asks for any, and the processes for them take their time.
    without_jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with pages(tmp_path, str(REPOSITORY / "scripts" / "mlflow_ui.py"), **without_jobs) as (port, program):
        wait_until(lambda: program.poll() is not None or status(port, "/health") == 200)
        runs = "/api/2.0/mlflow/experiments/search?max_results=5"
        for path in ("/", runs, f"/ajax-{runs[1:]}", "/api/2.0/mlflow-artifacts/artifacts"):
            assert status(port, path) == 401, path
            assert status(port, path, "another password") == 401, path
            assert status(port, path, PASSWORD) == 200, path
        assert status(port, "/", PASSWORD, host="evil.example") == 403
        listening = [c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert [place.ip for place in listening if place.port == port] == ["127.0.0.1"]
        told = (tmp_path / "server.log").read_text()
        assert f"http://localhost:{port} (user mission9, the password of MLFLOW_UI_PASSWORD)" in told
        assert PASSWORD not in told
        assert len(works_in(tmp_path)) > 1
        end(program, signal.SIGTERM, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_mlflows_pages_leaves_neither_server_nor_password(number: signal.Signals, tmp_path: Path) -> None:
    with pages(tmp_path, "-c", WITH_ANOTHER, PYTHONPATH=str(REPOSITORY)) as (_, program):
        wait_until(lambda: program.poll() is not None or len(works_in(tmp_path)) == 2)
        end(program, number, tmp_path)
