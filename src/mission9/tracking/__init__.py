"""Log the results of a run to MLflow."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mission9 import _package
from mission9.errors import Mission9Error, SetupError, TrackingError
from mission9.output.layout import MODEL_FOLDER, PAGE, REPORT
from mission9.output.run_report import Report
from mission9.pca import PCAModel
from mission9.redact import redact
from mission9.results.evaluate import Evaluation, evaluate
from mission9.results.reader import Results, of_one_result
from mission9.storage.local.scratch import scratch_folder
from mission9.tracking.server import be_patient, describe_error, no_answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities import Experiment, Metric, Run

logger = logging.getLogger(__name__)

EXPERIMENT = "mission9"
LOCAL = "local"  # in place of a server: mlflow.db and mlruns/ in the current folder
MODEL = "model"
MODULES = "mission9.zip"
RESULT_TAG = "mission9.result"

_REFUSED = "MLflow does not accept the results"

# The imports of the served model; MLflow would guess.
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
    """The reason why a server does not store files for its clients; empty if it does. The test file is deleted.

    Raises:
        SetupError: mlflow is not installed.
    """
    be_patient()
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
            return describe_error(error)
    return ""


def log_results(results: Results, uri: str) -> str:
    """Log results to an MLflow server, or to a file store; return a description. Results logged before are unchanged.

    Raises:
        SetupError: mlflow is not installed.
        TrackingError: the server does not answer, or refuses them.
    """
    _begin(uri)
    with scratch_folder() as scratch:
        return _send(PreparedLog(results, scratch / "kept"), uri)


def log_output(root: str, uri: str) -> str:
    """Log the current result in `root` with `log_results`; all of it belongs to one run.

    Raises:
        OutputError: there is no result.
        SetupError: mlflow is not installed.
        TrackingError: the server does not answer, or refuses it.
    """
    _begin(uri)
    with scratch_folder() as scratch:
        return _send(prepared(root, scratch), uri)


def prepared(root: str, scratch: Path) -> PreparedLog:
    """Collect everything to log from the current result in `root`; its files are stored in `scratch`."""
    return of_one_result(root, lambda results: PreparedLog(results, scratch / uuid.uuid4().hex))


class PreparedLog:
    """Everything to log, collected before it is sent: the report, accuracies, and files in `kept`."""

    def __init__(self, results: Results, kept: Path) -> None:
        self.report, self.kept = results.report, kept
        sent_model(results.root / MODEL_FOLDER, kept / MODEL_FOLDER)
        for name in (REPORT, PAGE):
            if (results.root / name).exists():
                shutil.copyfile(results.root / name, kept / name)
        self.evaluation = _judged(results)


def _begin(uri: str) -> None:
    """Check that a server answers, before any work on the results, and load MLflow's client."""
    if failure := no_answer(uri):
        raise TrackingError(f"{_REFUSED}: the server does not answer ({failure})")
    be_patient()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # the user has not consented
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of three small files
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise SetupError("mlflow is not installed: pip install 'mission9[mlflow]'") from error
    for talkative in ("mlflow", "urllib3"):  # failures are reported once, by this program
        logging.getLogger(talkative).setLevel(logging.ERROR)


def _send(result: PreparedLog, uri: str) -> str:
    try:
        return _Log(result, uri).write()
    except Mission9Error:
        raise
    except Exception as error:  # of any library that accesses stores of runs or files
        raise TrackingError(f"{_REFUSED}: {describe_error(error)}") from error


class _Log:
    """A result's run in MLflow."""

    def __init__(self, result: PreparedLog, uri: str) -> None:
        import mlflow

        self._mlflow = mlflow
        self._result = result
        self._is_local = uri == LOCAL
        self._uri = f"sqlite:///{Path('mlflow.db').absolute()}" if self._is_local else uri
        mlflow.set_tracking_uri(self._uri)

    def write(self) -> str:
        """Send the missing data, and return a description of its place."""
        experiment = self._experiment()
        digest = hashlib.sha256((self._result.kept / REPORT).read_bytes()).hexdigest()
        before = self._logged_before(experiment, digest)
        if before is not None and before.info.status == "FINISHED":
            return f"logged before, as run {before.info.run_id}"
        tags = {RESULT_TAG: digest, "mission9.fingerprint": self._result.report.fingerprint}
        run_id = None if before is None else before.info.run_id
        with self._mlflow.start_run(run_id=run_id, experiment_id=experiment, tags=tags) as run:
            self._log_numbers(run)
            self._log_files(run)
        return f"run {run.info.run_id} of the experiment {EXPERIMENT}"

    def _experiment(self) -> str:
        found = self._mlflow.get_experiment_by_name(EXPERIMENT)
        if found is None:
            place = Path("mlruns").absolute().as_uri() if self._is_local else None
            return str(self._mlflow.create_experiment(EXPERIMENT, artifact_location=place))
        if found.lifecycle_stage == "deleted":
            raise TrackingError(self._how_to_restore(found))
        return str(found.experiment_id)

    def _how_to_restore(self, experiment: Experiment) -> str:
        """Describe how to restore a deleted experiment; its deletion was deliberate, so it is not restored unasked."""
        return (
            f"{_REFUSED}: the experiment {EXPERIMENT} was deleted there; restore it with MLFLOW_TRACKING_URI="
            f"{redact(self._uri)} mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )

    def _logged_before(self, experiment: str, digest: str) -> Run | None:
        """The run of this result, a complete one if possible: an interrupted log is resumed."""
        wanted = f"tags.`{RESULT_TAG}` = '{digest}'"
        found = self._mlflow.search_runs([experiment], wanted, output_format="list")
        return min(found, key=lambda run: run.info.status != "FINISHED", default=None)

    def _log_numbers(self, run: Run) -> None:
        report = self._result.report
        self._mlflow.log_params({name: value for name, value in report.config.items() if value})
        client, numbers = self._mlflow.MlflowClient(), list(metrics(report, self._result.evaluation))
        # All have the time of the run: a number sent twice must stay one number.
        told = [_metric(*number, time=run.info.start_time) for number in numbers]
        for start in range(0, len(told), 1000):  # a server's limit for a request
            client.log_batch(run.info.run_id, metrics=told[start : start + 1000])

    def _log_files(self, run: Run) -> None:
        root = self._result.kept
        self._mlflow.log_figure(scree_plot(self._result.report.explained_variance_ratio), "scree.png")
        for name in (REPORT, PAGE):
            if (root / name).exists():
                self._mlflow.log_artifact(str(root / name))
        self._delete_models(run)
        model = root / MODEL_FOLDER
        for file in sorted(model.glob("pca.*")):  # for readers who want only the numbers
            self._mlflow.log_artifact(str(file), MODEL_FOLDER)
        with _no_bytecode():
            self._mlflow.pyfunc.log_model(name=MODEL, **served_model(model))

    def _delete_models(self, run: Run) -> None:
        """Delete incomplete models of the run: each would be shown next to the complete one."""
        client = self._mlflow.MlflowClient()
        wanted = f"source_run_id = '{run.info.run_id}'"
        for model in client.search_logged_models([run.info.experiment_id], wanted):
            client.delete_logged_model(model.model_id)


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Keep Python from caching bytecode next to the model's file, which MLflow runs in the folder that it uploads."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _judged(results: Results) -> Evaluation | None:
    try:
        return evaluate(results)
    except Mission9Error as error:  # for example with a single image; the rest can be logged
        logger.warning("MLflow: no accuracies: %s", error)
        return None


def metrics(report: Report, evaluation: Evaluation | None) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of every number; the step is a number of components, or 0."""
    for what in ("listed", "featured", "rejected"):
        yield f"images_{what}", getattr(report, what), 0
    yield "images_inferred", report.images_inferred, 0
    for stage, seconds in report.seconds.items():
        yield f"seconds_{stage}", seconds, 0
    if report.images_inferred and report.seconds.get("extract"):
        yield "images_per_second", report.images_inferred / report.seconds["extract"], 0
    for step, share in enumerate(np.cumsum(report.explained_variance_ratio), 1):
        yield "explained_variance_cumulated", float(share), step
    for count, accuracy in evaluation.curve.items() if evaluation else ():
        yield "accuracy_1nn", accuracy.nearest, count
        yield "accuracy_5nn", accuracy.neighbours, count
        yield "accuracy_logistic", accuracy.logistic, count


def _metric(name: str, value: float, step: int, *, time: int) -> Metric:
    from mlflow.entities import Metric

    return Metric(name, value, time, step)


def scree_plot(ratios: list[float]) -> Figure:
    """Explained variance by component, and its cumulative sum."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    each = figure.subplots()
    steps = np.arange(1, len(ratios) + 1)
    each.bar(steps, ratios, color="#4477AA", label="each")
    each.plot(steps, np.cumsum(ratios), color="#EE6677", label="cumulated")
    each.set(xlabel="component", ylabel="share of the variance", ylim=(0, 1))
    each.legend()
    return figure


def sent_model(folder: Path, target: Path) -> Path:
    """Copy a folder pca_model without the moments, which scores do not need; return the copy.

    They are most of its size, and would allow computing an image that is erased later.
    """
    model = PCAModel.load(folder)
    shutil.copytree(folder, target)
    model.without_moments().save(target)
    return target


def served_model(folder: Path) -> dict[str, Any]:
    """The arguments with which `mlflow.pyfunc.log_model` and `save_model` make a model of the copy by `sent_model`.

    This package is added as one archive of its modules, since each file is a request.
    """
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    from mission9.datasets.demo import VARIETIES, draw, jpeg
    from mission9.output.run_report import versions

    components = PCAModel.load(folder).n_components_
    pinned = versions(_SERVING)
    columns = Schema([ColSpec(DataType.binary, "image")])
    scores = Schema([TensorSpec(np.dtype(np.float32), (-1, components))])
    return {
        "python_model": str(_package.FOLDER / "tracking" / "pyfunc_model.py"),
        "artifacts": {"pca_model": str(folder)},
        "code_paths": [str(_write_modules(folder.with_name(MODULES)))],
        "signature": ModelSignature(columns, scores),
        "input_example": pd.DataFrame({"image": [jpeg(draw(VARIETIES[0], stream=0, number=0))]}),
        "pip_requirements": [f"{name}=={version}" for name, version in pinned.items() if name != "python"],
    }


def _write_modules(archive: Path) -> Path:
    """Write the modules of this package, without its data, into an archive that Python can import from."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(_package.FOLDER.rglob("*.py")):
            out.write(file, file.relative_to(_package.FOLDER.parent))
    return archive
