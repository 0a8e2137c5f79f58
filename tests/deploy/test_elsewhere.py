"""The bundle for Databricks and the manifest for Kubernetes, as far as a machine without either can tell."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mission9.cli import app
from tests.conftest import REPOSITORY
from tests.support.optional import skip_without

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
skip_without("kubeflow_spark_api", "requirements-dev.txt")

DEPLOY = REPOSITORY / "deploy"


def check_arguments(arguments: list[str]) -> None:
    """See that the command line takes them; variables stand for places in a bucket."""
    words = [re.sub(r"\$\{var\.\w+\}", "s3://my-bucket/place", word) for word in arguments]
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.fixture(scope="module")
def bundle() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "databricks/databricks.yml").read_text()))


def test_the_bundle_runs_the_wheel_where_there_are_gpus(bundle: dict[str, Any]) -> None:
    job = bundle["resources"]["jobs"]["mission9"]
    (step,) = job["tasks"]
    wheel = step["python_wheel_task"]
    check_arguments(wheel["parameters"])
    points = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]["mission9.tasks"]
    assert (wheel["package_name"], points[wheel["entry_point"]]) == ("mission9", "mission9.cli:task")
    assert {"whl": "../../dist/mission9-*.whl"} in step["libraries"]
    (cluster,) = (
        item["new_cluster"] for item in job["job_clusters"] if item["job_cluster_key"] == step["job_cluster_key"]
    )
    assert "-gpu-ml-" in cluster["spark_version"]
    assert cluster["data_security_mode"] == "SINGLE_USER"
    assert 0 < float(cluster["spark_conf"]["spark.task.resource.gpu.amount"]) < 1


def test_images_and_weights_come_from_a_volume_and_runs_end(bundle: dict[str, Any]) -> None:
    assert bundle["variables"]["volume"]["default"].startswith("/Volumes/")
    for job in bundle["resources"]["jobs"].values():
        assert job["timeout_seconds"]
    parameters = bundle["resources"]["jobs"]["mission9"]["tasks"][0]["python_wheel_task"]["parameters"]
    assert parameters[parameters.index("--input") + 1] == "${var.volume}/images"


def test_the_wheel_that_is_run_in_earnest_is_written_by_its_owner_alone(bundle: dict[str, Any]) -> None:
    target, owner = bundle["targets"]["prod"], "${workspace.current_user.userName}"
    assert target["mode"] == "production"
    assert target["workspace"]["root_path"].startswith(f"/Workspace/Users/{owner}/")
    assert target["run_as"] == {"user_name": owner}
    assert target["permissions"] == [{"level": "CAN_MANAGE", "user_name": owner}]


def test_the_notebook_of_the_bundle_is_the_one_that_is_tested(bundle: dict[str, Any]) -> None:
    path = bundle["resources"]["jobs"]["notebook"]["tasks"][0]["notebook_task"]["notebook_path"]
    assert (DEPLOY / "databricks" / path).resolve() == REPOSITORY / "notebooks/mission9.ipynb"


def test_a_task_that_went_well_ends_without_an_exit(tmp_path: Path) -> None:
    def done(*words: str) -> subprocess.CompletedProcess[str]:
        code = "from mission9.cli import task; task(); print('went on')"
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)

    assert done("subset", "--output", str(tmp_path), "--list").stdout == "went on\n"
    failed = done("run", "--input", str(tmp_path / "nowhere"))
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "nowhere" in failed.stderr


@pytest.fixture(scope="module")
def application() -> dict[str, Any]:
    parts = yaml.safe_load_all((DEPLOY / "kubernetes/spark-application.yaml").read_text())
    return next(dict(part) for part in parts if part["kind"] == "SparkApplication")


def check(manifest: dict[str, Any]) -> None:
    """Hold a manifest against the operator's own types, which drop what they do not know."""
    from kubeflow_spark_api import models as operator

    assert operator.SparkV1beta2SparkApplication.from_dict(manifest).to_dict() == manifest


def test_the_manifest_is_of_the_operators_form(application: dict[str, Any]) -> None:
    check(application)
    check_arguments(application["spec"]["arguments"])


def test_what_is_one_of_a_few_words_is_one_of_them(application: dict[str, Any]) -> None:
    """The operator's types call these texts; the words are those of its API reference, v1beta2."""
    spec = application["spec"]
    assert (application["apiVersion"], application["kind"]) == ("sparkoperator.k8s.io/v1beta2", "SparkApplication")
    assert spec["type"] in {"Java", "Python", "R", "Scala"}
    assert spec["mode"] in {"client", "cluster", "in-cluster-client"}
    assert spec["restartPolicy"]["type"] in {"Always", "Never", "OnFailure"}
    assert spec["imagePullPolicy"] in {"Always", "IfNotPresent", "Never"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "executor", "instances"), "2"),
        (("spec", "executor", "gpu"), {"name": "nvidia.com/gpu", "quantity": "1"}),
        (("spec", "driver", "serviceAcountName"), "mission9"),
        (("spec", "driver", "securityContext", "allowPrivilegeEscalaton"), False),
        (("spec", "sparkConf", "spark.executor.resource.gpu.amount"), 1),
        (("spec", "timeToLive"), 86400),
    ],
)
def test_what_the_operator_would_refuse_or_drop_is_found(
    path: tuple[str, ...], value: object, application: dict[str, Any]
) -> None:
    wrong = deepcopy(application)
    *way, name = path
    inner = wrong
    for step in way:
        inner = inner[step]
    inner[name] = value
    with pytest.raises((AssertionError, ValidationError)):
        check(wrong)


def test_each_executor_has_a_gpu_that_its_tasks_share(application: dict[str, Any]) -> None:
    settings = application["spec"]["sparkConf"]
    assert settings["spark.executor.resource.gpu.amount"] == "1"
    assert settings["spark.executor.resource.gpu.vendor"] == "nvidia.com"
    assert Path(settings["spark.executor.resource.gpu.discoveryScript"]).name == "discover-gpus.sh"
    tasks = 1 / float(settings["spark.task.resource.gpu.amount"])
    assert tasks == application["spec"]["executor"]["cores"] == 2


def test_pods_may_do_no_more_than_they_must(application: dict[str, Any]) -> None:
    for role in ("driver", "executor"):
        part = application["spec"][role]
        assert part["podSecurityContext"]["runAsNonRoot"] is True
        assert part["securityContext"]["allowPrivilegeEscalation"] is False
        assert part["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_image_of_the_manifest_is_of_this_version(application: dict[str, Any]) -> None:
    assert application["spec"]["image"].endswith(f":{importlib.metadata.version('mission9')}")
