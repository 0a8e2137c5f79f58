"""Runs in a real MLflow: what is logged, what is served, and what a server that is down, slow or wrong costs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from benchmarks.measure.cluster import free_port

from mission9 import RunConfig, run
from mission9.evaluate import Evaluation, evaluate
from mission9.pca import PCAModel
from mission9.results import Results
from mission9.tracking import metrics, prepared
from mission9.tracking.log_apart import log_within_patience
from tests.conftest import REPOSITORY, InProcessRunner
from tests.support.finished import copy_of, with_changes, write_tree
from tests.support.forks import USUAL, Ended, Forks

if find_spec("mlflow") is None:  # importing it takes seconds, of which each process of pytest-xdist would have its own
    pytest.skip("mlflow is not installed", allow_module_level=True)

# All that send to the one server, in one process of pytest-xdist.
of_one_server = pytest.mark.xdist_group("mlflow")

# Without the jobs that MLflow's server would do: nobody asks for any, and the eight processes for them take their time.
SERVING = {"PYTHONPATH": str(REPOSITORY / "src"), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

# The command on a machine that is busy: whoever answers has the time that it takes, and whoever does not has a second.
PATIENT = """
from mission9 import tracking
from mission9.tracking import log_apart
tracking.HURRIED |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
log_apart._PATIENCE, log_apart._PROBE = 300.0, %s
from mission9.cli import program
program()
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """The command, with MLflow's client loaded where it is started."""
    with Forks(modules=(*USUAL, "mlflow", "mlflow.pyfunc", "mission9.tracking.log_apart")) as started:
        yield started


def mission9(forks: Forks, *words: str, folder: Path, probe: float = 60.0, **environment: str) -> Ended:
    return forks.run(*words, code=PATIENT % probe, environment=environment, cwd=str(folder))


@pytest.fixture(scope="module")
def finished(pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A result, logged nowhere."""
    folder = tmp_path_factory.mktemp("finished")
    tree = write_tree(folder / "images", pictures)
    config = RunConfig(input=str(tree), output=str(folder / "out"), weights="demo", components=5)
    run(config, InProcessRunner())
    return config


@pytest.fixture
def done(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """The result and its images as a test's own."""
    return copy_of(finished, tmp_path)


def command(config: RunConfig) -> list[str]:
    return ["run", "--input", config.input, "--output", config.output, "--weights", "demo", "--components", "5"]


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
            env=os.environ | SERVING | {"PATH": f"{programs}:{os.environ['PATH']}"},
            start_new_session=True,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(address + path, timeout=5):
                    break
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(process.pid, 15)


@dataclass(frozen=True)
class Server:
    """A server of MLflow's own, and the folder in which it keeps files."""

    address: str
    kept: Path

    def ask(self, what: str, question: Mapping[str, object] | None = None, **facts: str) -> dict[str, Any]:
        url = f"{self.address}/api/2.0/mlflow/{what}" + (f"?{urlencode(facts)}" if facts else "")
        data = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def runs_of(self, output: str) -> list[dict[str, Any]]:
        """The runs that are of the result in a folder."""
        experiment = self.ask("experiments/get-by-name", experiment_name="mission9")["experiment"]["experiment_id"]
        digest = hashlib.sha256(Path(output, "run.json").read_bytes()).hexdigest()
        wanted = {"experiment_ids": [experiment], "filter": f"tags.`mission9.result` = '{digest}'"}
        return list(self.ask("runs/search", wanted).get("runs", []))


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    store = ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", str(folder / "kept")]
    with serving(["server", *store, "--workers", "1"], folder, free_port()) as address:
        yield Server(address, folder / "kept")


@pytest.mark.slow
@of_one_server
def test_a_run_is_logged_to_a_server_once(forks: Forks, mlflow: Server, done: RunConfig, tmp_path: Path) -> None:
    told = mission9(forks, *command(done), folder=tmp_path, MLFLOW_TRACKING_URI=mlflow.address)
    assert told.returncode == 0, told.stderr
    assert "MLflow: run " in told.stderr
    (run,) = mlflow.runs_of(done.output)
    number = run["info"]["run_id"]
    assert run["info"]["status"] == "FINISHED"
    params = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert (params["weights"], params["components"]) == ("demo", "5")
    report = json.loads(Path(done.output, "run.json").read_bytes())
    history = mlflow.ask("metrics/get-history", run_id=number, metric_key="explained_variance_cumulated")["metrics"]
    cumulated = sorted((int(metric["step"]), metric["value"]) for metric in history)
    assert [(step, pytest.approx(value)) for step, value in cumulated] == list(
        enumerate(np.cumsum(report["explained_variance_ratio"]), 1)
    )
    numbers = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    assert numbers["images_featured"] == 15
    assert 0 <= numbers["accuracy_1nn"] <= 1
    files = {file["path"] for file in mlflow.ask("artifacts/list", run_id=number)["files"]}
    assert {"run.json", "report.html", "scree.png", "pca_model"} <= files
    again = mission9(forks, "log", done.output, "--mlflow", mlflow.address, folder=tmp_path)
    assert again.stdout == f"logged before, as run {number}\n"
    assert len(mlflow.runs_of(done.output)) == 1
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.slow
@of_one_server
def test_the_doctor_tries_whether_a_server_keeps_files(forks: Forks, mlflow: Server, tmp_path: Path) -> None:
    def told() -> str:
        words = ["--input", str(tmp_path), "--mlflow", mlflow.address, "--runner", "local", "--weights", "demo"]
        lines = mission9(forks, "doctor", *words, folder=tmp_path).stdout.splitlines()
        return next(line for line in lines if line.split()[1] == "mlflow")

    before = set(mlflow.kept.rglob("*.*"))
    assert told().startswith("ok ")
    assert set(mlflow.kept.rglob("*.*")) == before
    mlflow.kept.mkdir(exist_ok=True)
    away = mlflow.kept.rename(mlflow.kept.with_name("away"))
    mlflow.kept.write_text("a file where the folder was")
    try:
        assert told().startswith("warning ")
    finally:
        mlflow.kept.unlink()
        away.rename(mlflow.kept)


@pytest.mark.slow
def test_the_logged_model_is_served_and_gives_the_scores_of_the_table(
    forks: Forks, finished: RunConfig, tmp_path: Path
) -> None:
    cached = (
        "import sys; sys.dont_write_bytecode, sys.pycache_prefix = False, None\n"  # of what is imported from now on
    )
    logged = forks.run("log", finished.output, code=cached + PATIENT % 60.0, cwd=str(tmp_path))
    assert (logged.returncode, logged.stderr) == (0, "")
    model = next((tmp_path / "mlruns").rglob("MLmodel")).parent
    assert (model / "code/mission9/projector.py").exists()
    assert not [file for file in model.rglob("*") if file.suffix == ".pyc"]
    assert not [file for file in model.rglob("*") if file.suffix in (".pkl", ".pickle")]
    images = [Path(finished.input) / "Test" / "a" / f"{number}.jpg" for number in (0, 1)]
    rows = [[base64.b64encode(image.read_bytes()).decode()] for image in images]
    question = json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()
    words = ["models", "serve", "--model-uri", str(model), "--env-manager", "local", "--workers", "1"]
    with serving(words, tmp_path, free_port(), "/ping") as address:
        request = urllib.request.Request(f"{address}/invocations", question, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            told = np.array(json.load(answer)["predictions"])
    scores = Results.of(finished.output).scores("Test")
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
@of_one_server
@pytest.mark.parametrize("kind", ["down", "silent", "wrong", "half"])
def test_a_server_that_does_not_do_its_part_costs_a_warning(
    kind: str, forks: Forks, done: RunConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with bad_server(kind) as address:
        secret = address.replace("//", "//someone:secret@")
        probe = 1.0 if kind == "silent" else 60.0
        told = mission9(forks, *command(done), "--mlflow", secret, folder=tmp_path, probe=probe)
    assert told.returncode == 0, told.stderr
    assert "secret" not in told.stderr + told.stdout + Path(done.output, "run.json").read_text()
    (warning,) = [line for line in told.stderr.splitlines() if line.startswith("MLflow")]
    assert warning.endswith(f"The results are whole; send them later: mission9 log {done.output}")
    assert "Traceback" not in told.stderr
    if kind == "half":  # which may have been sent a part
        mlflow: Server = request.getfixturevalue("mlflow")
        assert mission9(forks, "log", done.output, "--mlflow", mlflow.address, folder=tmp_path).returncode == 0
        assert len(mlflow.runs_of(done.output)) == 1


@pytest.mark.slow
def test_log_tells_in_a_line_that_there_is_no_server(forks: Forks, finished: RunConfig, tmp_path: Path) -> None:
    with bad_server("down") as address:
        words = ["log", finished.output, "--mlflow", address]
        told = mission9(forks, *words, folder=tmp_path, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert told.returncode == 1
    assert len(told.stderr.splitlines()) == 1
    assert told.stderr.startswith("mission9: MLflow does not take the results: ")


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("time.sleep(600)", "no answer within 1 s. The results are whole"),
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
    log_within_patience(str(tmp_path / "out"), "local")
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


@pytest.mark.slow
def test_what_is_logged_is_of_one_result(done: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = list[Evaluation]()

    def at_a_bad_moment(results: Results) -> Evaluation:
        found = evaluate(results)
        if not judged:  # another result takes the place of the one that was read
            run(with_changes(done, components=3), InProcessRunner())
        judged.append(found)
        return found

    monkeypatch.setattr("mission9.tracking.evaluate", at_a_bad_moment)
    prepared(done.output, tmp_path / "kept")
    assert len(judged) == 2
    assert max(judged[-1].curve) == 3
    kept = max((tmp_path / "kept").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    assert PCAModel.load(kept / "pca_model").n_components_ == 3
    assert json.loads((kept / "run.json").read_bytes())["n_components"] == 3
