"""Requests to EMR, checked against botocore's description of its services."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from packaging.requirements import Requirement

from mission9.cli import main
from mission9.config import RunConfig
from mission9.deploy import aws
from mission9.deploy.check import check_job, check_places
from mission9.deploy.emr import (
    OUTPUTS,
    Job,
    Machines,
    cluster_request,
    configurations,
    most_it_costs,
    run_arguments,
    serverless_request,
    stop_request,
)
from mission9.errors import ConfigError
from tests.conftest import REPOSITORY

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")

STACK = {name: f"the-{name.lower()}" for name in OUTPUTS} | {
    "Bucket": "my-bucket",
    "Results": "s3://my-bucket/results",
    "Key": "arn:aws:kms:eu-west-1:123456789012:key/11111111-1111-1111-1111-111111111111",
    "StopRole": "arn:aws:iam::123456789012:role/stop",
    "ServerlessRole": "arn:aws:iam::123456789012:role/work",
    "ServerlessApplication": "00f1abcdexample1",
    "ServiceRole": "arn:aws:iam::123456789012:role/service",
}
RUN: dict[str, Any] = {"input": "s3://my-bucket/images", "output": "s3://my-bucket/results", "weights": "demo"}


def job(run: dict[str, Any] | None = None, **settings: Any) -> Job:
    facts: dict[str, Any] = {
        "name": "mission9",
        "region": "eu-west-1",
        "stack": STACK,
        "run": RunConfig(**(RUN | (run or {}))),
    }
    return Job(**(facts | settings))


def stubbed(service: str, operation: str, answer: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """The client's answer to a request that matches the service's description and the expected parameters."""
    from botocore.stub import Stubber

    client = boto3.client(service, "eu-west-1", aws_access_key_id="none", aws_secret_access_key="none")
    with Stubber(client) as stub:
        stub.add_response(operation, answer, request)
        given: dict[str, Any] = getattr(client, operation)(**request)
    return given


def test_requests_are_of_the_form_that_amazon_describes() -> None:
    cluster = "j-2AXXXXXXGAPLF"
    request = cluster_request(job())
    assert stubbed("emr", "run_job_flow", {"JobFlowId": cluster}, request)["JobFlowId"] == cluster
    schedule = stop_request(job(), cluster, datetime(2026, 11, 25, 20, tzinfo=UTC))
    arn = "arn:aws:scheduler:eu-west-1:123456789012:schedule/default/mission9"
    assert stubbed("scheduler", "create_schedule", {"ScheduleArn": arn}, schedule)
    answer = {
        "applicationId": "00f1abcdexample1",
        "jobRunId": "1",
        "arn": "arn:aws:emr-serverless:eu-west-1:123456789012:/applications/00f1abcdexample1/jobruns/1",
    }
    assert stubbed("emr-serverless", "start_job_run", answer, serverless_request(job()))


def test_a_misspelt_request_would_be_noticed() -> None:
    from botocore.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError, match="ReleaseLable"):
        stubbed("emr", "run_job_flow", {}, cluster_request(job()) | {"ReleaseLable": "emr-7.13.0"})


def test_the_cluster_ends_by_itself_in_three_ways() -> None:
    request = cluster_request(job(max_hours=1.5))
    assert request["Instances"]["KeepJobFlowAliveWhenNoSteps"] is False
    assert 60 <= request["AutoTerminationPolicy"]["IdleTimeout"] <= 604800
    (step,) = request["Steps"]
    command = step["HadoopJarStep"]["Args"]
    assert command[:4] == ["timeout", "--signal=TERM", "--kill-after=120", "5400"]
    assert step["ActionOnFailure"] == "TERMINATE_CLUSTER"
    schedule = stop_request(job(max_hours=1.5), "j-1", datetime(2026, 11, 25, 20, tzinfo=UTC))
    assert schedule["ScheduleExpression"] == "at(2026-11-25T21:50:00)"
    assert json.loads(schedule["Target"]["Input"]) == {"JobFlowIds": ["j-1"]}
    assert serverless_request(job(max_hours=1.5))["executionTimeoutMinutes"] == 90


def test_only_more_than_the_first_machine_is_at_the_price_of_the_day() -> None:
    groups = cluster_request(job(machines=Machines(spot=3)))["Instances"]["InstanceGroups"]
    assert [(g["InstanceRole"], g["Market"], g["InstanceCount"]) for g in groups] == [
        ("MASTER", "ON_DEMAND", 1),
        ("CORE", "ON_DEMAND", 1),
        ("TASK", "SPOT", 3),
    ]
    assert len(cluster_request(job(machines=Machines(spot=0)))["Instances"]["InstanceGroups"]) == 2


def test_gpus_are_handed_out_by_all_that_must_know_of_them() -> None:
    found = {item["Classification"]: item for item in configurations()}
    assert found["yarn-site"]["Properties"]["yarn.resource-types"] == "yarn.io/gpu"
    inner = {item["Classification"]: item["Properties"] for item in found["container-executor"]["Configurations"]}
    hierarchy = found["yarn-site"]["Properties"]["yarn.nodemanager.linux-container-executor.cgroups.mount-path"]
    assert inner["gpu"] == {"module.enabled": "true"}
    assert inner["cgroups"]["root"] == hierarchy == "/spark-rapids-cgroup"
    calculator = found["capacity-scheduler"]["Properties"]["yarn.scheduler.capacity.resource-calculator"]
    assert calculator.endswith("DominantResourceCalculator")
    spark = found["spark-defaults"]["Properties"]
    assert float(spark["spark.task.resource.gpu.amount"]) <= float(spark["spark.executor.resource.gpu.amount"]) == 1
    assert spark["spark.executor.resource.gpu.discoveryScript"] == "/opt/mission9/discover-gpus.sh"
    assert "spark.plugins" not in spark


def test_the_run_is_given_what_was_set_and_nothing_of_this_machine() -> None:
    run = RunConfig(**RUN, components=0.9, overwrite=True, runner="local", workers=2, executor_memory="2g")
    words = run_arguments(run)
    assert words[words.index("--components") + 1] == "0.9"
    assert "--overwrite" in words
    assert not {"--runner", "--workers", "--executor-memory", "--no-report"} & set(words)
    assert "cuda" in cluster_request(job())["Steps"][0]["HadoopJarStep"]["Args"]
    assert "cpu" in serverless_request(job())["jobDriver"]["sparkSubmit"]["entryPointArguments"]


@pytest.mark.parametrize(
    ("settings", "run", "told"),
    [
        ({"region": "us-east-1"}, {}, "not in the European Union"),
        ({"region": "eu-west-2"}, {}, "not in the European Union"),
        ({"region": "eu-central-2"}, {}, "not in the European Union"),
        ({"release": "7.13.0"}, {}, "is not a release of EMR"),
        ({"max_hours": 0}, {}, "more than 0 and at most 24"),
        ({"max_hours": 25}, {}, "more than 0 and at most 24"),
        ({"machines": Machines(gpu="g6.xlarge")}, {}, "not offered in eu-west-1: pass one of g4dn, g5"),
        ({"machines": Machines(gpu="m5.xlarge")}, {}, "not offered"),
        ({"machines": Machines(spot=51)}, {}, "pass 0 to 50"),
        ({}, {"input": "photos"}, "--input photos is on this machine"),
        ({}, {"output": "out"}, "--output out is on this machine"),
        ({}, {"weights": "imagenet"}, "without the internet"),
        ({}, {"mlflow": "https://me:secret@server"}, "a password or a key"),
        ({}, {"mlflow": "local"}, "--mlflow local .* would be lost with the cluster"),
        ({}, {"mlflow": "http://127.0.0.1:5009"}, "would be lost with the cluster"),
        ({}, {"mlflow": "sqlite:///mlflow.db"}, "would be lost with the cluster"),
        ({}, {"pseudonymise": "pseudonym.key"}, "--pseudonymise pseudonym.key: the key must not leave this machine"),
        ({}, {"pseudonymise": "env:PSEUDONYMS"}, "--pseudonymise env:PSEUDONYMS: the key must not leave this machine"),
        ({}, {"pca_model": "earlier/pca_model"}, "--pca-model earlier/pca_model is on this machine"),
        ({}, {"estimate": "estimate.json"}, "--estimate estimate.json is on this machine"),
    ],
)
def test_what_cannot_go_well_is_refused(settings: dict[str, Any], run: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        check_job(job(run, **settings))
    assert "secret" not in str(refused.value)


def test_tables_are_not_encrypted_by_a_key_that_is_not_there() -> None:
    for key in ("tables.key", "env:TABLES"):
        with pytest.raises(ConfigError, match="have the bucket do it"):
            job({"encrypt_key": key})


@pytest.mark.parametrize("name", ["input", "output", "weights", "pca_model", "estimate"])
def test_what_machines_of_the_stack_cannot_reach_is_refused(name: str) -> None:
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(ConfigError, match=f"{option} s3://other/place is outside the bucket of .* s3://my-bucket"):
        check_places(job({name: "s3://other/place"}))


@pytest.mark.parametrize("output", ["s3://my-bucket", "s3://my-bucket/images", "s3://my-bucket/results2"])
def test_results_go_where_machines_may_write(output: str) -> None:
    check_places(job())
    check_places(job({"output": "s3://my-bucket/results/2026", "weights": "s3://my-bucket/imagenet.safetensors"}))
    with pytest.raises(
        ConfigError, match=f"cannot write to --output {output}: pass a prefix of s3://my-bucket/results"
    ):
        check_places(job({"output": output}))


def test_the_wheels_that_go_to_the_bucket_are_all_that_a_run_there_needs() -> None:
    page = (REPOSITORY / "docs/how-to/emr.md").read_text()
    (listed,) = re.findall(r"^printf '%s\\n' (.*) > requirements.txt$", page, re.MULTILINE)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = project["dependencies"] + [name for extra in ("torch", "s3", "report", "spark") for name in extras[extra]]
    names = {Requirement(text).name for text in needed} - {"pyspark"}  # EMR's own
    assert names <= {Requirement(text).name for text in shlex.split(listed)}


def test_serverless_has_no_gpus() -> None:
    check_job(job(), serverless=True)
    with pytest.raises(ConfigError, match="has no GPUs"):
        check_job(job({"device": "cuda"}), serverless=True)


def test_more_machines_and_hours_cost_more() -> None:
    few = most_it_costs(job(max_hours=1, machines=Machines(spot=0)))
    assert few < most_it_costs(job(max_hours=2, machines=Machines(spot=0)))
    assert few < most_it_costs(job(max_hours=1, machines=Machines(spot=1)))


def test_a_machine_that_is_not_in_the_list_has_no_price(capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for name in RUN for word in (f"--{name}", RUN[name])]
    assert main(["deploy", "emr", "--dry-run", "--gpu-type", "g5.48xlarge", *words]) == 0
    assert "what it may cost is not known: the machine type g5.48xlarge is unknown" in capsys.readouterr().err


def test_a_dry_run_prints_the_requests_and_asks_nobody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object, **__: object) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(aws, "client", ask)
    monkeypatch.setattr(boto3, "Session", ask)
    command = ["deploy", "emr", "--dry-run", *(word for name in RUN for word in (f"--{name}", RUN[name]))]
    assert main(command) == 0
    told = capsys.readouterr()
    asked = json.loads(told.out)
    assert set(asked) == {"put", "run_job_flow", "create_schedule"}
    assert "at most 5.64 USD" in told.err
    assert "check them" in told.err
    assert main([*command, "--serverless"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"put", "start_job_run"}


def test_one_thing_is_done_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "emr"]) == 2
    assert main(["deploy", "emr", "--dry-run", "--submit"]) == 2
    assert "give one of --dry-run, --submit and --logs" in capsys.readouterr().err
