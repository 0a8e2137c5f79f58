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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from benchmarks.measure.cluster import free_port

from tests.conftest import REPOSITORY

pytest.importorskip("mlflow", reason="mlflow is not installed")

PASSWORD = "a password for 100% of this"


@contextmanager
def pages(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port of MLflow's pages, as `make mlflow-ui` starts them, and the program."""
    port = free_port()
    command = [
        sys.executable,
        str(REPOSITORY / "scripts" / "mlflow_ui.py"),
        "--port",
        str(port),
        "--folder",
        str(tmp_path),
    ]
    (tmp_path / "temporary").mkdir()
    hears = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)  # noqa: E731 (under nohup, these tests would not)
    settings = os.environ | {"MLFLOW_UI_PASSWORD": PASSWORD, "TMPDIR": str(tmp_path / "temporary")}
    with (
        (tmp_path / "server.log").open("w") as told,
        subprocess.Popen(
            command, stdout=told, stderr=told, env=settings, start_new_session=True, preexec_fn=hears
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and status(port, "/health") != 200:
                time.sleep(0.2)
            yield port, process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)


@pytest.fixture
def mlflow_ui(tmp_path: Path) -> Iterator[int]:
    with pages(tmp_path) as (port, _):
        yield port


def status(port: int, path: str, password: str | None = None, host: str = "127.0.0.1") -> int:
    """What it answers; 0 for nothing."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": f"{host}:{port}"})
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"mission9:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.slow
def test_mlflows_pages_are_for_whoever_has_the_password(mlflow_ui: int, tmp_path: Path) -> None:
    runs = "/api/2.0/mlflow/experiments/search?max_results=5"
    for path in ("/", runs, f"/ajax-{runs[1:]}", "/api/2.0/mlflow-artifacts/artifacts"):
        assert status(mlflow_ui, path) == 401, path
        assert status(mlflow_ui, path, "another password") == 401, path
        assert status(mlflow_ui, path, PASSWORD) == 200, path
    assert status(mlflow_ui, "/", PASSWORD, host="evil.example") == 403
    listening = [c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [place.ip for place in listening if place.port == mlflow_ui] == ["127.0.0.1"]
    told = (tmp_path / "server.log").read_text()
    assert f"http://localhost:{mlflow_ui} (user mission9, the password of MLFLOW_UI_PASSWORD)" in told
    assert PASSWORD not in told


def works_in(folder: Path) -> list[psutil.Process]:
    """The processes whose folder it is, as it is that of the server and all its workers."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += [process] if process.cwd() == str(folder) else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_ends_mlflows_pages_leaves_neither_server_nor_password(number: signal.Signals, tmp_path: Path) -> None:
    with pages(tmp_path) as (port, program):
        assert status(port, "/health") == 200
        (kept,) = (tmp_path / "temporary").glob("mission9-mlflow-*/auth.ini")
        assert "100%% of this" in kept.read_text()
        try:
            os.kill(program.pid, number)
            assert program.wait(60) == 128 + number
            assert not kept.parent.exists()
            assert works_in(tmp_path) == []
        finally:
            for process in works_in(tmp_path):
                process.kill()
