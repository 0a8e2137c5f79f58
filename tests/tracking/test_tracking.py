"""Runs in a real MLflow: what is logged, what is served, and what a server that is down, slow or wrong costs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import safetensors.numpy

from mission9 import RunConfig, run
from mission9.models.weights import SAVED_FILE
from mission9.output.run_report import Report, SplitCounts
from mission9.pca import PCAModel
from mission9.results.evaluate import Evaluation, evaluate
from mission9.results.reader import Results
from mission9.tracking import metrics, prepared
from mission9.tracking.server import no_answer
from mission9.tracking.subprocess_logger import log_apart
from tests.conftest import REPOSITORY, InProcessRunner
from tests.support.cluster import free_port
from tests.support.finished import copy_of, with_changes, write_tree
from tests.support.forks import PROGRAM, USUAL, Ended, Forks

if find_spec("mlflow") is None:  # importing it takes seconds, of which each process of pytest-xdist would have its own
    pytest.skip("mlflow is not installed", allow_module_level=True)

# All that send to the one server, in one process of pytest-xdist.
of_one_server = pytest.mark.xdist_group("mlflow")

# Without the jobs that MLflow's server would do: nobody asks for any, and the eight processes for them take their time.
SERVING = {"PYTHONPATH": str(REPOSITORY / "src"), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

# On a machine that is busy: whoever answers has the time that it takes.
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """The command, with MLflow's client loaded where it is started."""
    with Forks(modules=(*USUAL, "mlflow", "mlflow.pyfunc", "mission9.tracking.subprocess_logger")) as started:
        yield started


def mission9(forks: Forks, *words: str, folder: Path, before: str = "", **environment: str) -> Ended:
    """The command, after code of a test's own."""
    return forks.run(*words, code=f"{before}\n{PROGRAM}", environment=PATIENT | environment, cwd=str(folder))


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
    logged = mission9(forks, "log", finished.output, folder=tmp_path, before=cached)
    assert (logged.returncode, logged.stderr) == (0, "")
    model = next((tmp_path / "mlruns").rglob("MLmodel")).parent
    assert "mission9/results/projector.py" in zipfile.ZipFile(model / "code/mission9.zip").namelist()
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


class Silent(Wrong):
    def do_GET(self) -> None:
        self.rfile.read()  # until whoever asked hangs up

    do_POST = do_HEAD = do_GET  # noqa: N815


class Stops(Silent):
    do_HEAD = Half.do_HEAD  # noqa: N815


@dataclass
class BadServer:
    """A server that is not there, does not answer, answers with an error, or says so of all but its health."""

    address: str
    asked: int = 0


@contextlib.contextmanager
def bad_server(kind: str) -> Iterator[BadServer]:
    if kind == "down":
        yield BadServer(f"http://127.0.0.1:{free_port()}")
        return
    handler = {"silent": Silent, "wrong": Wrong, "half": Half, "stops": Stops}[kind]
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        bad = BadServer(f"http://127.0.0.1:{server.server_address[1]}")
        told = server.finish_request

        def counted(*question: Any) -> None:
            bad.asked += 1
            told(*question)

        server.finish_request = counted  # type: ignore[assignment, method-assign]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield bad
        server.shutdown()


@pytest.mark.slow
@of_one_server
@pytest.mark.parametrize("kind", ["down", "silent", "wrong", "half"])
def test_a_server_that_does_not_do_its_part_costs_a_warning(
    kind: str, forks: Forks, done: RunConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with bad_server(kind) as bad:
        secret = bad.address.replace("//", "//someone:secret@")
        told = mission9(forks, *command(done), "--mlflow", secret, folder=tmp_path, **patience(kind))
    assert told.returncode == 0, told.stderr
    assert "secret" not in told.stderr + told.stdout + Path(done.output, "run.json").read_text()
    (warning,) = [line for line in told.stderr.splitlines() if line.startswith("MLflow")]
    assert warning.endswith(f"The results are complete; send them later: mission9 log {done.output}")
    assert "Traceback" not in told.stderr
    if kind == "half":  # which may have been sent a part
        mlflow: Server = request.getfixturevalue("mlflow")
        assert mission9(forks, "log", done.output, "--mlflow", mlflow.address, folder=tmp_path).returncode == 0
        assert len(mlflow.runs_of(done.output)) == 1


def patience(kind: str) -> dict[str, str]:
    """A second, where the time would be waited for in full."""
    return {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1"} if kind in ("silent", "stops") else {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "why", "asked"),
    [
        ("down", "does not answer ([Errno 111] Connection refused)", 0),
        ("silent", "does not answer (timed out)", 1),
        ("wrong", "does not answer (it answers 500)", 1),
        ("half", "repeatedly answers 500", 3),
        ("stops", "was silent for 1 s", 3),
    ],
)
def test_log_tells_in_a_line_why_a_server_does_not_take_results_and_asks_little(
    kind: str, why: str, asked: int, forks: Forks, finished: RunConfig, tmp_path: Path
) -> None:
    """A question for a sign of life, and the first one of MLflow's client, with one try more."""
    with bad_server(kind) as bad:
        told = mission9(forks, "log", finished.output, "--mlflow", bad.address, folder=tmp_path, **patience(kind))
    remedy = f"The results are complete; send them later: mission9 log {finished.output}"
    assert told.stderr == f"mission9: MLflow does not accept the results: the server {why}. {remedy}\n"
    assert told.returncode == 1
    assert bad.asked <= asked


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload``")  # of MLflow's own queries
def test_a_killed_log_is_taken_up_and_a_deleted_experiment_has_a_remedy(
    forks: Forks, finished: RunConfig, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    killed = (
        "import os, mlflow.pyfunc\n"
        "save = mlflow.pyfunc.save_model\n"
        "def save_and_die(*_, **given): save(*_, **given); os._exit(9)\n"
        "mlflow.pyfunc.save_model = save_and_die\n"
    )
    assert mission9(forks, "log", finished.output, folder=tmp_path, before=killed).returncode == 9
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("mission9")
    assert experiment is not None
    number = experiment.experiment_id
    (left,) = client.search_runs([number])
    assert left.info.status == "RUNNING"
    told = mission9(forks, "log", finished.output, folder=tmp_path)
    assert (told.stdout, told.stderr) == (f"run {left.info.run_id} of the experiment mission9\n", "")
    (whole,) = client.search_runs([number])
    assert (whole.info.run_id, whole.info.status) == (left.info.run_id, "FINISHED")
    assert [str(model.status) for model in client.search_logged_models([number])] == ["READY"]
    assert len(client.get_metric_history(left.info.run_id, "images_featured")) == 1  # though it was sent twice

    client.delete_experiment(number)
    refused = mission9(forks, "log", finished.output, folder=tmp_path)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    remedy = refused.stderr.partition("restore it with ")[2].partition(". The results")[0]
    variable, program, *words = remedy.split()
    assert (variable, program) == (f"MLFLOW_TRACKING_URI=sqlite:///{tmp_path}/mlflow.db", "mlflow")
    name, _, value = variable.partition("=")
    subprocess.run([sys.executable, "-m", "mlflow", *words], env=os.environ | {name: value}, check=True, cwd=tmp_path)
    again = mission9(forks, "log", finished.output, folder=tmp_path)
    assert again.stdout == f"logged before, as run {left.info.run_id}\n"


@pytest.mark.slow
def test_little_is_sent_and_weights_once(forks: Forks, finished: RunConfig, tmp_path: Path) -> None:
    assert mission9(forks, "log", finished.output, folder=tmp_path).returncode == 0
    sent = [file for file in (tmp_path / "mlruns").rglob("*") if file.is_file()]
    assert [file.parent.name for file in sent if file.name == SAVED_FILE] == ["pca_model"]
    weights, page = (Path(finished.output, name).stat().st_size for name in (f"pca_model/{SAVED_FILE}", "report.html"))
    assert sum(file.stat().st_size for file in sent) < weights + page + 2_000_000
    assert len(sent) <= 20
    for file in sent:
        if file.name == "pca.safetensors":  # from which an image that is erased later could be computed
            assert "scatter" not in safetensors.numpy.load(file.read_bytes())


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("print('no room', flush=True)\nos._exit(1)", "no room. The results are complete"),
        ("print('run 1 of the experiment', flush=True)\nos._exit(0)", "MLflow: run 1 of the experiment"),
    ],
)
def test_work_that_goes_on_has_no_limit_and_words_of_others_cost_nothing(
    end: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The process itself is real; what it loads as it begins speaks first, and then in its place. Hours pass by."""
    (tmp_path / "sitecustomize.py").write_text(f"import os\nprint('somebody else begins')\n{end}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    hours = itertools.count(step=3600)
    monkeypatch.setattr("subprocess._time", lambda: float(next(hours)))
    caplog.set_level("INFO", "mission9")
    log_apart(str(tmp_path / "out"), "local", str(tmp_path / "out"))
    assert told in caplog.text


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql", "mssql+pyodbc"])
def test_a_database_that_is_down_is_told_at_once(scheme: str) -> None:
    assert no_answer(f"{scheme}://someone:secret@127.0.0.1:{free_port()}/mlflow") == "Connection refused"


@pytest.mark.parametrize("uri", ["local", "sqlite:///x.db", "file:///x", "databricks"])
def test_a_store_of_files_is_not_asked_for_a_sign_of_life(uri: str) -> None:
    assert no_answer(uri) == ""


def test_a_failure_before_it_is_ready_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mission9")
    log_apart(str(tmp_path / "none"), "local", "none")
    assert f"{tmp_path / 'none'}" in caplog.text.partition("The results are complete")[0]


def test_rates_are_of_what_was_inferred_and_steps_are_components() -> None:
    report = Report(
        config={},
        fingerprint="",
        weights={},
        engine={},
        splits={"Training": SplitCounts(listed=5, featured=4, rejected=1)},
        images_inferred=4,
        seconds={"extract": 2.0},
        explained_variance_ratio=[0.5, 0.25],
    )
    found = list(metrics(report, None))
    assert ("images_per_second", 2.0, 0) in found
    assert [number for number in found if number[0].startswith("explained")] == [
        ("explained_variance_cumulated", 0.5, 1),
        ("explained_variance_cumulated", 0.75, 2),
    ]
    assert not [name for name, _, _ in metrics(replace(report, images_inferred=0), None) if name == "images_per_second"]


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
