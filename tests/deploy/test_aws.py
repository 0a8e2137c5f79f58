"""Submitting, waiting and fetching logs, against moto: an emulation of Amazon's services in this process."""

from __future__ import annotations

import functools
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mission9.cli import main
from mission9.deploy import aws
from mission9.deploy.emr import OUTPUTS
from mission9.errors import CloudError, ConfigError
from tests.conftest import REPOSITORY
from tests.deploy.test_emr import STACK, job

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
moto = pytest.importorskip("moto", reason="moto is not installed")

BUCKET = STACK["Bucket"]


@pytest.fixture(scope="module", autouse=True)
def _little_to_load() -> Iterator[None]:
    """The descriptions of Amazon's services parsed once, not for each session; and no AMIs in moto, as nobody asks."""
    import botocore.session
    from botocore.loaders import create_loader
    from moto.ec2.models.amis import AmiBackend

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(create_loader))
        patch.setattr(AmiBackend, "_load_amis", lambda _: None)
        yield


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with the bucket, and a stack that gives out what ours does."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        place = {"LocationConstraint": "eu-west-1"}
        boto3.client("s3", "eu-west-1").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
        outputs = {name: {"Value": STACK[name]} for name in OUTPUTS}
        topic = {"Topic": {"Type": "AWS::SNS::Topic"}}
        template = json.dumps({"Resources": topic, "Outputs": outputs})
        boto3.client("cloudformation", "eu-west-1").create_stack(StackName="mission9", TemplateBody=template)
        yield


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    file = tmp_path / "mission9.zip"
    file.write_bytes(b"a wheel")
    return file


RUN = ["--input", "s3://my-bucket/images", "--output", "s3://my-bucket/results", "--weights", "demo"]


@pytest.mark.usefixtures("cloud")
def test_a_cluster_is_started_with_its_code_and_its_end(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "emr", "--submit", "--max-hours", "1", "--wheel", str(wheel), *RUN]) == 0
    cluster = capsys.readouterr().out.strip()
    found = boto3.client("emr", "eu-west-1").describe_cluster(ClusterId=cluster)["Cluster"]
    assert (found["ReleaseLabel"], found["LogUri"]) == ("emr-7.13.0", f"s3://{BUCKET}/logs/")
    listed = boto3.client("s3", "eu-west-1").list_objects_v2(Bucket=BUCKET)["Contents"]
    names = {"discover-gpus.sh", "emr-bootstrap.sh", "mission9.zip", "spark_main.py"}
    assert {item["Key"] for item in listed} == {f"code/{name}" for name in names}
    (schedule,) = boto3.client("scheduler", "eu-west-1").list_schedules()["Schedules"]
    assert schedule["Name"] == f"mission9-stop-{cluster}"


@pytest.mark.usefixtures("cloud")
def test_a_cluster_that_gets_no_end_is_ended_at_once(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[str, Any]:
        return {}  # a request that names nothing

    monkeypatch.setattr(aws, "stop_request", refuse)
    with pytest.raises(CloudError, match="was ended, since its end after"):
        aws.submit_cluster(job(), wheel)
    (cluster,) = boto3.client("emr", "eu-west-1").list_clusters()["Clusters"]
    assert cluster["Status"]["State"] == "TERMINATED"


@pytest.mark.parametrize(
    ("first", "why"),
    [("AccessDeniedException", "AccessDeniedException.*CreateSchedule"), (None, "KeyboardInterrupt")],
)
def test_a_cluster_that_cannot_be_ended_is_named(
    first: str | None, why: str, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.stub import Stubber

    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    clients = {service: boto3.client(service, "eu-west-1", **keys) for service in ("emr", "scheduler", "s3")}
    monkeypatch.setattr(aws, "client", lambda service, _: clients[service])
    monkeypatch.setattr(aws, "uploads", lambda _: {})
    with Stubber(clients["emr"]) as emr, Stubber(clients["scheduler"]) as scheduler:
        emr.add_response("run_job_flow", {"JobFlowId": "j-1"})
        emr.add_client_error("terminate_job_flows", "ThrottlingException", "Rate exceeded")
        if first is None:  # Ctrl-C while it is asked
            monkeypatch.setattr(clients["scheduler"], "create_schedule", _interrupt)
        else:
            scheduler.add_client_error("create_schedule", first, "no")
        with pytest.raises(CloudError, match="^j-1 is running without a scheduled end") as caught:
            aws.submit_cluster(job(), wheel)
        emr.assert_no_pending_responses()
    told = str(caught.value)
    assert "aws emr terminate-clusters --region eu-west-1 --cluster-ids j-1" in told
    assert re.search(why, told)
    assert "ThrottlingException" in told


def _interrupt(**_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize(
    ("environment", "words", "told"),
    [
        ({"AWS_PROFILE": "nope"}, [], "The config profile (nope) could not be found"),
        ({}, ["--region", "eu_west 1"], "eu_west 1"),
    ],
)
def test_a_profile_or_region_that_is_none_is_told_in_a_line(
    environment: dict[str, str], words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["deploy", "emr", "--logs", "j-1", *words]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "AWS_PROFILE" in said


@pytest.mark.usefixtures("cloud")
def test_its_end_is_waited_for_and_its_logs_are_brought(wheel: Path, tmp_path: Path) -> None:
    cluster = aws.submit_cluster(job(), wheel)
    emr, s3 = boto3.client("emr", "eu-west-1"), boto3.client("s3", "eu-west-1")
    said = gzip.compress(b"Training 3,000 listed\n")
    s3.put_object(Bucket=BUCKET, Key=f"logs/{cluster}/steps/s-1/stdout.gz", Body=said)
    s3.put_object(Bucket=BUCKET, Key=f"logs/{cluster}/../../../outside.gz", Body=said)
    s3.put_object(Bucket=BUCKET, Key="logs/j-OTHER/steps/s-1/stdout.gz", Body=said)
    emr.terminate_job_flows(JobFlowIds=[cluster])
    ended = aws.wait_for(job(), cluster, look=0.01)
    assert ended.told.startswith("terminated")
    assert not ended.is_good  # somebody ended it, not its last step
    assert boto3.client("scheduler", "eu-west-1").list_schedules()["Schedules"] == []
    (file,) = aws.fetch_logs(STACK, "eu-west-1", cluster, tmp_path / "logs")
    assert file == tmp_path / "logs" / cluster / "steps" / "s-1" / "stdout"
    assert file.read_text() == "Training 3,000 listed\n"


@pytest.mark.parametrize(
    ("state", "code", "is_good"),
    [
        ("TERMINATED", "ALL_STEPS_COMPLETED", True),
        ("TERMINATED", "USER_REQUEST", False),
        ("TERMINATED_WITH_ERRORS", "STEP_FAILURE", False),
        ("TERMINATED_WITH_ERRORS", "BOOTSTRAP_FAILURE", False),
    ],
)
def test_a_cluster_ended_well_if_all_its_steps_did(
    state: str, code: str, is_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.stub import Stubber

    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    clients = {service: boto3.client(service, "eu-west-1", **keys) for service in ("emr", "scheduler")}
    monkeypatch.setattr(aws, "client", lambda service, _: clients[service])
    status = {"State": state, "StateChangeReason": {"Code": code, "Message": "words"}}
    with Stubber(clients["emr"]) as emr, Stubber(clients["scheduler"]) as scheduler:
        emr.add_response("describe_cluster", {"Cluster": {"Status": {"State": "RUNNING"}}}, {"ClusterId": "j-1"})
        emr.add_response("describe_cluster", {"Cluster": {"Status": status}}, {"ClusterId": "j-1"})
        scheduler.add_response("delete_schedule", {}, {"Name": "mission9-stop-j-1"})
        ended = aws.wait_for(job(), "j-1", look=0.01)
        scheduler.assert_no_pending_responses()
    assert ended.is_good == is_good
    assert code in ended.told


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--logs", "j-NOBODY"], "there are no logs of j-NOBODY"),
        (["--logs", "j-1", "--stack", "other"], "cannot read the stack other in eu-west-1"),
        (["--submit", "--wheel", "nowhere.zip", *RUN], "the wheel nowhere.zip does not exist: build it"),
        (["--submit", *RUN, "--pca-model", "s3://other/pca_model"], "is outside the bucket of the stack"),
    ],
)
def test_what_is_missing_is_told_in_a_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "emr", *words]) != 0
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("cloud")
def test_another_stack_is_not_taken_for_ours() -> None:
    template = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": {"Bucket": {"Value": "b"}}})
    boto3.client("cloudformation", "eu-west-1").create_stack(StackName="other", TemplateBody=template)
    with pytest.raises(ConfigError, match="has no output Key"):
        aws.stack_outputs("other", "eu-west-1")


def test_without_credentials_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CloudError, match="credentials"):
        aws.stack_outputs("mission9", "eu-west-1")


@pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")
def test_a_cluster_starts_in_what_the_template_makes(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it that moto knows: not what closes bucket and subnet to the public, nor EMR Serverless."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        clients = {name: boto3.client(name, "eu-west-1") for name in ("cloudformation", "s3", "kms", "ec2", "emr")}
        template = (REPOSITORY / "deploy/emr/stack.yaml").read_text()
        rights = ["CAPABILITY_IAM"]
        clients["cloudformation"].create_stack(StackName="mission9", TemplateBody=template, Capabilities=rights)
        (stack,) = clients["cloudformation"].describe_stacks(StackName="mission9")["Stacks"]
        made = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        assert set(OUTPUTS) - set(made) == {"ServerlessApplication"}
        rules = clients["s3"].get_bucket_encryption(Bucket=made["Bucket"])["ServerSideEncryptionConfiguration"]["Rules"]
        default = rules[0]["ApplyServerSideEncryptionByDefault"]
        assert (default["SSEAlgorithm"], default["KMSMasterKeyID"]) == ("aws:kms", made["Key"])
        assert clients["kms"].get_key_rotation_status(KeyId=made["Key"])["KeyRotationEnabled"]
        endpoints = clients["ec2"].describe_vpc_endpoints()["VpcEndpoints"]
        kinds = {item["ServiceName"].rpartition(".")[2]: item["VpcEndpointType"] for item in endpoints}
        assert kinds == {"s3": "Gateway", "kms": "Interface"}
        cluster = aws.submit_cluster(job(stack=made | {"ServerlessApplication": "none"}), wheel)
        found = clients["emr"].describe_cluster(ClusterId=cluster)["Cluster"]
        assert found["Ec2InstanceAttributes"]["Ec2SubnetId"] == made["Subnet"]
        assert found["SecurityConfiguration"] == made["SecurityConfiguration"]
