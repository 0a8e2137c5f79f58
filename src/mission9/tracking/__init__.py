"""The results of a run -> a run in MLflow."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mission9
from mission9.disk.scratch import scratch_folder
from mission9.errors import Mission9Error, SetupError, TrackingError
from mission9.evaluate import Evaluation, evaluate
from mission9.output.folder import MODEL_FOLDER, REPORT
from mission9.output.page_file import PAGE
from mission9.privacy.redact import redact
from mission9.results import Results, of_one_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities import Metric, Run

logger = logging.getLogger(__name__)

EXPERIMENT = "mission9"
LOCAL = "local"  # in the place of a server: mlflow.db and mlruns/ in the current folder
MODEL = "model"
RESULT_TAG = "mission9.result"

# The client's own patience is 246 s.
HURRIED = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}

# What the served model imports; MLflow would guess.
_SERVING = (
    "mlflow",
    "numpy",
    "openvino",
    "pandas",
    "pillow",
    "platformdirs",
    "pyarrow",
    "safetensors",
    "threadpoolctl",
)


def why_files_are_refused(uri: str) -> str:
    """Why a server does not keep a file for its clients, in words; empty if it does, of which nothing is left then.

    Raises:
        SetupError: mlflow is not installed.
    """
    os.environ |= HURRIED
    try:
        import mlflow
        from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
    except ImportError as error:
        raise SetupError("mlflow is not installed: pip install 'mission9[mlflow]'") from error
    mlflow.set_tracking_uri(uri)
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe"
        probe.touch()
        try:
            store = MlflowArtifactsRepository(f"mlflow-artifacts:/{EXPERIMENT}-doctor-{uuid.uuid4().hex}")
            store.log_artifact(str(probe))  # type: ignore[no-untyped-call]
            store.delete_artifacts()  # type: ignore[no-untyped-call]
        except (mlflow.exceptions.MlflowException, OSError) as error:
            return redact(str(error).partition("\n")[0])[:300]
    return ""


def log_results(results: Results, uri: str) -> str:
    """Log results to an MLflow server, or to a store of files, and say where; logged before, they stay as they are.

    Raises:
        SetupError: mlflow is not installed.
        TrackingError: the server does not take them.
    """
    with scratch_folder() as scratch:
        return Prepared(results, scratch).log(uri)


def log_output(root: str, uri: str) -> str:
    """Log the result that stands in `root`, as `log_results` does, all of it of one run.

    Raises:
        OutputError: there is none.
        SetupError: mlflow is not installed.
        TrackingError: the server does not take them.
    """
    with scratch_folder() as scratch:
        return prepared(root, scratch).log(uri)


def prepared(root: str, scratch: Path) -> Prepared:
    """Have at hand all that is to be logged of the result that stands in `root`; its files are kept in `scratch`."""
    return of_one_result(root, lambda results: Prepared(results, scratch / uuid.uuid4().hex))


class Prepared:
    """All that is to be logged, at hand before the server is asked; files are copied to a folder, `kept`."""

    def __init__(self, results: Results, kept: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody was asked
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of three small files
        try:
            import mlflow
        except ImportError as error:
            raise SetupError("mlflow is not installed: pip install 'mission9[mlflow]'") from error
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        self._mlflow = mlflow
        self._results, self._kept = results, kept
        shutil.copytree(results.root / MODEL_FOLDER, kept / MODEL_FOLDER)
        for name in (REPORT, PAGE):
            if (results.root / name).exists():
                shutil.copyfile(results.root / name, kept / name)
        self._evaluation = _judged(results)
        self._scree = scree_plot(results.report["explained_variance_ratio"])

    def log(self, uri: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return self._log(uri)
        except (MlflowException, OSError) as error:
            words = redact(str(error).partition("\n")[0])[:300]
            raise TrackingError(f"MLflow does not take the results: {words}") from error

    def _log(self, uri: str) -> str:
        mlflow = self._mlflow
        mlflow.set_tracking_uri(f"sqlite:///{Path('mlflow.db').absolute()}" if uri == LOCAL else uri)
        experiment = self._experiment(uri)
        digest = hashlib.sha256((self._kept / REPORT).read_bytes()).hexdigest()
        before = self._logged_before(experiment, digest)
        if before is not None and before.info.status == "FINISHED":
            return f"logged before, as run {before.info.run_id}"
        tags = {RESULT_TAG: digest, "mission9.fingerprint": self._results.report["fingerprint"]}
        run_id = None if before is None else before.info.run_id
        with mlflow.start_run(run_id=run_id, experiment_id=experiment, tags=tags) as run:
            self._log_numbers(run.info.run_id)
            self._log_files()
        return f"run {run.info.run_id} of the experiment {EXPERIMENT}"

    def _experiment(self, uri: str) -> str:
        found = self._mlflow.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        place = Path("mlruns").absolute().as_uri() if uri == LOCAL else None
        return str(self._mlflow.create_experiment(EXPERIMENT, artifact_location=place))

    def _logged_before(self, experiment: str, digest: str) -> Run | None:
        wanted = f"tags.`{RESULT_TAG}` = '{digest}'"
        found = self._mlflow.search_runs([experiment], wanted, output_format="list", max_results=1)
        return found[0] if found else None

    def _log_numbers(self, run: str) -> None:
        from mlflow.tracking import MlflowClient

        self._mlflow.log_params({name: value for name, value in self._results.report["config"].items() if value})
        client, numbers = MlflowClient(), list(metrics(self._results.report, self._evaluation))
        for start in range(0, len(numbers), 1000):  # as many as a server takes at a time
            client.log_batch(run, metrics=[_metric(*number) for number in numbers[start : start + 1000]])

    def _log_files(self) -> None:
        root = self._kept
        self._mlflow.log_figure(self._scree, "scree.png")
        for name in (REPORT, PAGE):
            if (root / name).exists():
                self._mlflow.log_artifact(str(root / name))
        self._mlflow.log_artifacts(str(root / MODEL_FOLDER), MODEL_FOLDER)
        with _no_bytecode():
            self._mlflow.pyfunc.log_model(name=MODEL, **served_model(root / MODEL_FOLDER))


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """MLflow runs the model's file where it is uploaded from: Python must leave no cache of it there."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _judged(results: Results) -> Evaluation | None:
    try:
        return evaluate(results)
    except Mission9Error as error:  # a single image, say; there is enough else to log
        logger.warning("MLflow: no accuracies: %s", error)
        return None


def metrics(report: Mapping[str, Any], evaluation: Evaluation | None) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of everything that is a number; the step is a number of components, or 0."""
    for what in ("listed", "featured", "rejected"):
        yield f"images_{what}", sum(split[what] for split in report["splits"].values()), 0
    yield "images_inferred", report["images_inferred"], 0
    for stage, seconds in report["seconds"].items():
        yield f"seconds_{stage}", seconds, 0
    if report["images_inferred"] and (seconds := report["seconds"].get("extract")):
        yield "images_per_second", report["images_inferred"] / seconds, 0
    for step, share in enumerate(np.cumsum(report["explained_variance_ratio"]), 1):
        yield "explained_variance_cumulated", float(share), step
    for count, accuracy in evaluation.curve.items() if evaluation else ():
        yield "accuracy_1nn", accuracy.nearest, count
        yield "accuracy_5nn", accuracy.neighbours, count
        yield "accuracy_logistic", accuracy.logistic, count


def _metric(name: str, value: float, step: int) -> Metric:
    from mlflow.entities import Metric

    return Metric(name, value, round(time.time() * 1000), step)


def scree_plot(ratios: list[float]) -> Figure:
    """Explained variance by component, and cumulated."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    each = figure.subplots()
    steps = np.arange(1, len(ratios) + 1)
    each.bar(steps, ratios, color="#4477AA", label="each")
    each.plot(steps, np.cumsum(ratios), color="#EE6677", label="cumulated")
    each.set(xlabel="component", ylabel="share of the variance", ylim=(0, 1))
    each.legend()
    return figure


def served_model(folder: Path) -> dict[str, Any]:
    """What `mlflow.pyfunc.log_model` and `save_model` take to make a model of a folder pca_model."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    from mission9.pca import PCAModel
    from mission9.sample import VARIETIES, draw, jpeg
    from mission9.stages.report import versions

    package = Path(mission9.__file__).parent
    components = PCAModel.load(folder).n_components_
    pinned = versions(_SERVING)
    columns = Schema([ColSpec(DataType.binary, "image")])
    scores = Schema([TensorSpec(np.dtype(np.float32), (-1, components))])
    return {
        "python_model": str(package / "tracking" / "pyfunc_model.py"),
        "artifacts": {"pca_model": str(folder)},
        "code_paths": [str(package)],
        "signature": ModelSignature(columns, scores),
        "input_example": pd.DataFrame({"image": [jpeg(draw(VARIETIES[0], stream=0, number=0))]}),
        "pip_requirements": [f"{name}=={version}" for name, version in pinned.items() if name != "python"],
    }
