"""Runs in a real MLflow: what is logged, what is served, and what a server that is down, slow or wrong costs."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.measure.cluster import free_port

from mission9.results import Results
from mission9.tracking import metrics
from mission9.tracking.log_apart import log_within_patience
from tests.conftest import REPOSITORY

pytest.importorskip("mlflow", reason="mlflow is not installed")

SETTINGS = ["--weights", "demo", "--components", "5", "--runner", "local", "--workers", "2"]


def mission9(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mission9", *arguments]
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")} | environment
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def out(tree: Path, tmp_path: Path) -> Path:
    """A result, logged nowhere."""
    done = mission9("run", "--input", str(tree), "--output", str(tmp_path / "out"), *SETTINGS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


@contextlib.contextmanager
def serving(command: list[str], folder: Path, port: int, path: str = "/health") -> Iterator[str]:
    """A server's address, as soon as it answers."""
    address, programs = f"http://127.0.0.1:{port}", Path(sys.executable).parent
    with (
        (folder / "server.log").open("w") as told,
        subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            stdout=told,
            stderr=told,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "PATH": f"{programs}:{os.environ['PATH']}"},
            start_new_session=True,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(address + path, timeout=5):
                    break
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(process.pid, 15)


def server(folder: Path) -> contextlib.AbstractContextManager[str]:
    store = ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", str(folder / "kept")]
    return serving(["server", *store, "--workers", "1"], folder, free_port())


def runs_of(address: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("mission9")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


@pytest.mark.slow
def test_a_run_is_logged_to_a_server_once(tree: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    with server(tmp_path) as address:
        command = ["run", "--input", str(tree), "--output", str(tmp_path / "out"), *SETTINGS]
        done = mission9(*command, folder=tmp_path, MLFLOW_TRACKING_URI=address)
        assert done.returncode == 0, done.stderr
        assert "MLflow: run " in done.stderr
        (run,) = runs_of(address)
        assert run.info.status == "FINISHED"
        assert (run.data.params["weights"], run.data.params["components"]) == ("demo", "5")
        client, report = MlflowClient(address), json.loads((tmp_path / "out" / "run.json").read_bytes())
        cumulated = client.get_metric_history(run.info.run_id, "explained_variance_cumulated")
        assert [
            (metric.step, pytest.approx(metric.value)) for metric in sorted(cumulated, key=lambda m: m.step)
        ] == list(enumerate(np.cumsum(report["explained_variance_ratio"]), 1))
        assert run.data.metrics["images_featured"] == 15
        assert 0 <= run.data.metrics["accuracy_1nn"] <= 1
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"run.json", "report.html", "scree.png", "pca_model"} <= files
        again = mission9("log", str(tmp_path / "out"), "--mlflow", address, folder=tmp_path)
        assert again.stdout == f"logged before, as run {run.info.run_id}\n"
        assert len(runs_of(address)) == 1
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.slow
def test_the_doctor_tries_whether_a_server_keeps_files(tmp_path: Path) -> None:
    def told() -> str:
        command = ["doctor", "--input", str(tmp_path), "--mlflow", address, "--runner", "local", "--weights", "demo"]
        lines = mission9(*command, folder=tmp_path).stdout.splitlines()
        return next(line for line in lines if line.split()[1] == "mlflow")

    with server(tmp_path) as address:
        assert told().startswith("ok ")
        assert not list((tmp_path / "kept").rglob("*.*"))
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        (tmp_path / "kept").write_text("a file where the folder was")
        assert told().startswith("warning ")


@pytest.mark.slow
def test_the_logged_model_is_served_and_gives_the_scores_of_the_table(out: Path, tree: Path, tmp_path: Path) -> None:
    done = mission9("log", str(out), folder=tmp_path, PYTHONDONTWRITEBYTECODE="")
    assert (done.returncode, done.stderr) == (0, "")
    model = next((tmp_path / "mlruns").rglob("MLmodel")).parent
    assert (model / "code/mission9/projector.py").exists()
    assert not [file for file in model.rglob("*") if file.suffix == ".pyc"]
    assert not [file for file in model.rglob("*") if file.suffix in (".pkl", ".pickle")]
    images = [tree / "Test" / "a" / f"{number}.jpg" for number in (0, 1)]
    rows = [[base64.b64encode(image.read_bytes()).decode()] for image in images]
    question = json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()
    command = ["models", "serve", "--model-uri", str(model), "--env-manager", "local", "--workers", "1"]
    with serving(command, tmp_path, free_port(), "/ping") as address:
        request = urllib.request.Request(f"{address}/invocations", question, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            told = np.array(json.load(answer)["predictions"])
    scores = Results.of(out).scores("Test")
    assert list(scores.paths[:2]) == ["Test/a/0.jpg", "Test/a/1.jpg"]
    np.testing.assert_allclose(told, scores.pca[:2], rtol=1e-4, atol=1e-4)


class Wrong(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class Half(Wrong):
    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()


@contextlib.contextmanager
def bad_server(kind: str) -> Iterator[str]:
    """The address of a server that is not there, does not answer, answers with an error, or says so of all but this."""
    if kind == "down":
        yield f"http://127.0.0.1:{free_port()}"
    elif kind == "silent":
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
    else:
        handler = {"wrong": Wrong, "half": Half}[kind]
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as wrong:
            threading.Thread(target=wrong.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{wrong.server_address[1]}"
            wrong.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["down", "silent", "wrong", "half"])
def test_a_server_that_does_not_do_its_part_costs_a_warning(kind: str, tree: Path, tmp_path: Path) -> None:
    with bad_server(kind) as address:
        secret = address.replace("//", "//someone:secret@")
        command = ["run", "--input", str(tree), "--output", str(tmp_path / "out"), *SETTINGS, "--mlflow", secret]
        done = mission9(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stderr + done.stdout + (tmp_path / "out" / "run.json").read_text()
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("MLflow")]
    assert warning.endswith(f"The results are whole; send them later: mission9 log {tmp_path / 'out'}")
    assert "Traceback" not in done.stderr
    with server(tmp_path) as address:
        assert mission9("log", str(tmp_path / "out"), "--mlflow", address, folder=tmp_path).returncode == 0
        assert len(runs_of(address)) == 1


@pytest.mark.slow
def test_log_tells_in_a_line_that_there_is_no_server(out: Path, tmp_path: Path) -> None:
    with bad_server("down") as address:
        done = mission9("log", str(out), "--mlflow", address, folder=tmp_path, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("mission9: MLflow does not take the results: ")


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("time.sleep(60)", "no answer within 1 s. The results are whole"),
        ("print('no room', flush=True)\nos._exit(1)", "no room. The results are whole"),
        ("print('run 1 of the experiment', flush=True)\nos._exit(0)", "MLflow: run 1 of the experiment"),
    ],
)
def test_words_of_others_before_ours_cost_neither_the_patience_nor_the_result(
    end: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process itself is real; what it loads as it begins speaks first, and then in its place."""
    words = "import os, time\nprint('somebody else begins')\nprint('ready', flush=True)\n"
    (tmp_path / "sitecustomize.py").write_text(words + end)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("mission9.tracking.log_apart._PATIENCE", 1.0)
    caplog.set_level("INFO", "mission9")
    start = time.monotonic()
    log_within_patience(str(tmp_path / "out"), "local")
    assert time.monotonic() - start < 30
    assert told in caplog.text


def test_a_failure_before_it_is_ready_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mission9")
    log_within_patience(str(tmp_path / "none"), "local")
    assert f"{tmp_path / 'none'}" in caplog.text.partition("The results are whole")[0]


def test_rates_are_of_what_was_inferred_and_steps_are_components() -> None:
    report = {
        "splits": {"Training": {"listed": 5, "featured": 4, "rejected": 1}},
        "images_inferred": 4,
        "seconds": {"extract": 2.0},
        "explained_variance_ratio": [0.5, 0.25],
    }
    found = list(metrics(report, None))
    assert ("images_per_second", 2.0, 0) in found
    assert [number for number in found if number[0].startswith("explained")] == [
        ("explained_variance_cumulated", 0.5, 1),
        ("explained_variance_cumulated", 0.75, 2),
    ]
    assert not [name for name, _, _ in metrics(report | {"images_inferred": 0}, None) if name == "images_per_second"]
