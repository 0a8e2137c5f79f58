"""The commands that send a run to machines of a cloud."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from mission9.cli.app import MAKE, app
from mission9.cli.console import console, fail, say
from mission9.config import Flag, RunConfig
from mission9.deploy.check import check_job, check_places
from mission9.deploy.emr import (
    OUTPUTS,
    Job,
    Machines,
    cluster_request,
    most_it_costs,
    serverless_request,
    stop_request,
    uploads,
)
from mission9.errors import ConfigError
from mission9.estimate.instances import note

deploy = App(name="deploy", help="Send a run to machines of a cloud.", group=MAKE)
app.command(deploy)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EmrOptions:
    """The options of a run on EMR: the place, the machines and the time limit."""

    region: str = "eu-west-1"
    """Region, in the European Union."""
    stack: str = "mission9"
    """Name of the stack."""
    serverless: Flag = False
    """Use EMR Serverless, which has no GPUs, instead of a cluster."""
    max_hours: float = Job.max_hours
    """Time limit of the run, in hours."""
    gpu_type: str = Machines.gpu
    """Type of the machines that compute."""
    spot_nodes: int = Machines.spot
    """Number of additional spot machines, which Amazon may reclaim."""
    primary_type: str = Machines.primary
    """Type of the machine that distributes the work."""
    release: str = Job.release
    """Release of EMR."""
    wheel: Path = Path("dist/mission9.zip")
    """The archive that make wheel builds."""
    folder: Path = Path("data/logs")
    """Folder for the logs."""


@deploy.command
def emr(
    *,
    config: RunConfig | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    submit: Annotated[bool, Parameter(negative="")] = False,
    logs: str | None = None,
    wait: Flag = False,
    options: EmrOptions | None = None,
) -> int:
    """Run on Amazon's EMR, in the stack of deploy/emr/stack.yaml; takes the options of `mission9 run`.

    Pass one of --dry-run, --submit and --logs. The cluster ends with its run; Amazon ends it after 15 idle minutes, and
    at the latest after --max-hours and its start.

    ```bash
    mission9 deploy emr --dry-run --input s3://bucket/images --output s3://bucket/results --weights demo
    mission9 deploy emr --submit --wait --input s3://bucket/images --output s3://bucket/results --weights demo
    mission9 deploy emr --submit --serverless --input s3://bucket/images --output s3://bucket/results --weights demo
    mission9 deploy emr --logs j-2AXXXXXXGAPLF
    ```

    Parameters
    ----------
    config:
        The settings of the run; its input, output and weights are in buckets.
    dry_run:
        Print the requests to Amazon and their maximum cost, without sending them.
    submit:
        Send the requests, and print the id of the cluster or job.
    logs:
        Download the logs of a cluster (j-…), or of a job of EMR Serverless, into --folder.
    wait:
        Wait for the end, and download the logs.
    options:
        The place, the machines and the time limit.
    """
    from mission9.deploy import aws

    chosen = options or EmrOptions()
    if dry_run + submit + (logs is not None) != 1:
        return fail("give one of --dry-run, --submit and --logs ID (mission9 deploy emr --help)", 2)
    if logs is not None:
        _fetch(aws.stack_outputs(chosen.stack, chosen.region), chosen, logs)
        return 0
    job = _job(chosen, config or RunConfig(), {output: f"{chosen.stack}.{output}" for output in OUTPUTS})
    check_job(job, serverless=chosen.serverless)
    if dry_run:
        _show(job, chosen)
        return 0
    job = replace(job, stack=aws.stack_outputs(chosen.stack, chosen.region))
    check_places(job)
    work = (aws.submit_serverless if chosen.serverless else aws.submit_cluster)(job, chosen.wheel)
    say(work)
    if not wait:
        return 0
    ended = aws.wait_for(job, work)
    try:
        _fetch(job.stack, chosen, work)
    except ConfigError as error:  # they come when they come, and the run is what was asked for
        console.print(f"{error}: mission9 deploy emr --logs {work}", markup=False)
    return 0 if ended.is_good else fail(f"{work} ended: {ended.told}", 1)


def _job(chosen: EmrOptions, run: RunConfig, stack: Mapping[str, str]) -> Job:
    return Job(
        name=chosen.stack,
        region=chosen.region,
        stack=stack,
        run=run,
        max_hours=chosen.max_hours,
        release=chosen.release,
        machines=Machines(primary=chosen.primary_type, gpu=chosen.gpu_type, spot=chosen.spot_nodes),
    )


def _show(job: Job, chosen: EmrOptions) -> None:
    asked: dict[str, Any] = {"put": {f"{job.code}/{name}": str(file) for name, file in uploads(chosen.wheel).items()}}
    if chosen.serverless:
        asked["start_job_run"] = serverless_request(job)
    else:
        asked["run_job_flow"] = cluster_request(job)
        asked["create_schedule"] = stop_request(job, "j-CLUSTER", datetime.now(UTC))
        console.print(_cost(job), markup=False)
    print(json.dumps(asked, indent=2))


def _cost(job: Job) -> str:
    try:
        limit = f"{job.max_hours:g} h and 20 minutes for its start"
        return f"at most {most_it_costs(job):.2f} USD, if it lives to its limit, {limit}. {note()}"
    except ConfigError as error:
        return f"what it may cost is not known: {error}"


def _fetch(stack: Mapping[str, str], chosen: EmrOptions, work: str) -> None:
    from mission9.deploy.aws import fetch_logs

    for file in fetch_logs(stack, chosen.region, work, chosen.folder):
        say(str(file))
