"""Read a stack's outputs, upload files to its bucket, start a cluster or a job, and read their logs."""

from __future__ import annotations

import gzip
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from mission9.deploy.emr import OUTPUTS, Job, cluster_request, serverless_request, stop_request, uploads
from mission9.errors import CloudError, ConfigError, SetupError

logger = logging.getLogger(__name__)

_LOOK = 30.0  # seconds between polls of a cluster or job
_ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS", "SUCCESS", "FAILED", "CANCELLED")
_ALL_DONE = "ALL_STEPS_COMPLETED"  # a cluster's end on success; one ended by a person or a limit has no error either


@dataclass(frozen=True)
class Ended:
    """The end of a cluster or a job."""

    is_good: bool
    told: str


def client(service: str, region: str) -> Any:
    """A client of an AWS service, with the credentials of the environment.

    Raises:
        SetupError: boto3 is not installed.
        ConfigError: the profile or the region does not exist.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise SetupError("boto3, which calls AWS, is not installed: pip install 'mission9[s3]'") from error
    try:
        return boto3.Session().client(service, region_name=region)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"no AWS client for {region!r}: {error}; check --region, AWS_PROFILE and ~/.aws") from error


@contextmanager
def translate_errors(doing: str) -> Iterator[None]:
    """Turn the cloud's exceptions into one sentence that begins with `doing`.

    Raises:
        CloudError: the cloud refuses the request, or is unreachable.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        facts = error.response.get("Error", {})
        raise CloudError(f"{doing}: {facts.get('Code', 'error')}: {facts.get('Message', 'no reason given')}") from error
    except BotoCoreError as error:
        raise CloudError(f"{doing}: {error}; check your AWS credentials") from error


def stack_outputs(name: str, region: str) -> dict[str, str]:
    """The outputs of the stack of `deploy/emr/stack.yaml`.

    Raises:
        CloudError: the stack does not exist, or cannot be read.
        ConfigError: it is another stack, or of another version.
    """
    asked = client("cloudformation", region)
    with translate_errors(f"cannot read the stack {name} in {region} (--stack, --region)"):
        (stack,) = asked.describe_stacks(StackName=name)["Stacks"]
    found = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    if missing := [output for output in OUTPUTS if output not in found]:
        raise ConfigError(f"the stack {name} has no output {missing[0]}: create it from deploy/emr/stack.yaml")
    return found


def submit_cluster(job: Job, wheel: Path) -> str:
    """Start a cluster for a run, with a deadline at which Amazon ends it; return its id.

    Raises:
        CloudError: it was not started. A cluster that could not be given its deadline was ended at once.
    """
    _upload(job, wheel)
    emr, scheduler = client("emr", job.region), client("scheduler", job.region)
    with translate_errors("the cluster was not started"):
        cluster = str(emr.run_job_flow(**cluster_request(job))["JobFlowId"])
    try:
        with translate_errors(f"{cluster} was ended, since its end after --max-hours could not be scheduled"):
            scheduler.create_schedule(**stop_request(job, cluster, datetime.now(UTC)))
    except BaseException as error:
        _end_at_once(emr, job.region, cluster, error)
        raise
    return cluster


def _end_at_once(emr: Any, region: str, cluster: str, cause: BaseException) -> None:
    try:
        with translate_errors("terminating it failed"):
            emr.terminate_job_flows(JobFlowIds=[cluster])
    except CloudError as refused:
        command = f"aws emr terminate-clusters --region {region} --cluster-ids {cluster}"
        why = cause.__cause__ or cause
        raise CloudError(
            f"{cluster} is running without a scheduled end ({str(why) or type(why).__name__}) and could not be ended "
            f"({refused}): end it by hand ({command})"
        ) from cause


def submit_serverless(job: Job, wheel: Path) -> str:
    """Start a run on EMR Serverless, which ends it at its limit; return its id.

    Raises:
        CloudError: it was not started.
    """
    _upload(job, wheel)
    serverless = client("emr-serverless", job.region)
    with translate_errors("the job was not started"):
        return str(serverless.start_job_run(**serverless_request(job))["jobRunId"])


def _upload(job: Job, wheel: Path) -> None:
    if not wheel.is_file():
        raise ConfigError(f"the wheel {wheel} does not exist: build it with make wheel, or pass another --wheel")
    s3 = client("s3", job.region)
    for name, file in uploads(wheel).items():
        with translate_errors(f"cannot upload {name} to {job.code}"):
            s3.put_object(Bucket=job.stack["Bucket"], Key=f"code/{name}", Body=file.read_bytes())


def wait_for(job: Job, work: str, *, look: float = _LOOK) -> Ended:
    """Wait for the end of a cluster (j-…) or of a job of EMR Serverless; each change of its state is logged."""
    ask = _cluster_state if work.startswith("j-") else _job_state
    state = ""
    while True:
        with translate_errors(f"cannot read the state of {work}, which is still running"):
            now, why = ask(job, work)
        if now != state:
            logger.info("%s: %s %s", work, now.lower(), why)
        state = now
        if state in _ENDED:
            break
        time.sleep(look)
    with suppress(CloudError), translate_errors("its end has come"):
        if work.startswith("j-"):
            name = stop_request(job, work, datetime.now(UTC))["Name"]
            client("scheduler", job.region).delete_schedule(Name=name)
    return Ended(state == "SUCCESS" or _ALL_DONE in why, f"{state.lower()} {why}".strip())


def _cluster_state(job: Job, work: str) -> tuple[str, str]:
    status = client("emr", job.region).describe_cluster(ClusterId=work)["Cluster"]["Status"]
    reason = status.get("StateChangeReason", {})
    return status["State"], f"{reason.get('Code', '')} {reason.get('Message', '')}".strip()


def _job_state(job: Job, work: str) -> tuple[str, str]:
    asked = client("emr-serverless", job.region)
    run = asked.get_job_run(applicationId=job.stack["ServerlessApplication"], jobRunId=work)["jobRun"]
    return run["state"], run.get("stateDetails", "")


def fetch_logs(stack: Mapping[str, str], region: str, work: str, folder: Path) -> list[Path]:
    """Download and unpack the logs of a cluster or a job; return the files.

    Raises:
        CloudError: the bucket cannot be read.
        ConfigError: there are no logs yet, or no longer.
    """
    bucket = stack["Bucket"]
    within = work if work.startswith("j-") else f"applications/{stack['ServerlessApplication']}/jobs/{work}"
    s3 = client("s3", region)
    files = []
    with translate_errors(f"cannot read logs in s3://{bucket}/logs/"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"logs/{within}/"):
            for item in page.get("Contents", []):
                body = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read
                files += _write_log(folder, item["Key"].removeprefix("logs/"), body)
    if not files:
        raise ConfigError(f"there are no logs of {work} in s3://{bucket}/logs/: try again some minutes after its start")
    return files


def _write_log(folder: Path, name: str, read: Callable[[], bytes]) -> list[Path]:
    parts = PurePosixPath(name).parts
    if name.endswith("/") or ".." in parts or name.startswith("/"):
        return []
    file = folder.joinpath(*parts)
    data = read()
    if file.suffix == ".gz":
        file, data = file.with_suffix(""), gzip.decompress(data)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return [file]
