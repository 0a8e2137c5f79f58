"""Build the requests for a run on EMR: a GPU cluster that ends by itself, or a job of EMR Serverless."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from mission9.config import RunConfig
from mission9.estimate.instances import find_instances
from mission9.runners.environment import WORKERS

REGIONS = ("eu-west-1", "eu-west-3", "eu-central-1", "eu-north-1", "eu-south-1", "eu-south-2")
RELEASE = "emr-7.13.0"
IDLE_SECONDS = 900

# The regions that offer each kind of GPU; `make deploy-check` compares them with cfn-lint's data.
OFFERED = {
    "g4dn": ("eu-west-1", "eu-west-3", "eu-central-1", "eu-north-1", "eu-south-1"),
    "g5": ("eu-west-1", "eu-central-1", "eu-north-1"),
    "g6": ("eu-west-3", "eu-central-1", "eu-north-1", "eu-south-2"),
}

# The outputs of `deploy/emr/stack.yaml`.
OUTPUTS = (
    *("Bucket", "Key", "Subnet", "PrimaryGroup", "NodeGroup", "ServiceGroup", "SecurityConfiguration"),
    *("ServiceRole", "NodeProfile", "StopRole", "ServerlessApplication", "ServerlessRole", "Results"),
)

SCRIPTS = ("spark_main.py", "discover-gpus.sh", "emr-bootstrap.sh")
PACKAGE = "mission9.zip"  # a renamed wheel: Spark accepts no .whl for modules
_PYTHON = "/opt/mission9/bin/python"
_GRACE = 120  # seconds between asking a run to end and killing it
_START = timedelta(minutes=20)  # a cluster's longest start before its step begins

# Settings that Spark decides there, or that concern this machine only.
_OF_HERE = {"runner", "workers", "master", "spark_ui", "driver_memory", "executor_memory", "config"}


@dataclass(frozen=True, kw_only=True)
class Machines:
    """A primary, a core node with a GPU, and `spot` more GPU nodes, which Amazon may take away."""

    primary: str = "m5.xlarge"
    gpu: str = "g4dn.xlarge"
    spot: int = 2


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run and its destination; `stack` holds the `OUTPUTS` of the stack of that name."""

    name: str
    region: str
    stack: Mapping[str, str]
    run: RunConfig
    max_hours: float = 2.0
    release: str = RELEASE
    machines: Machines = Machines()

    @property
    def code(self) -> str:
        """The address of scripts and wheels."""
        return f"s3://{self.stack['Bucket']}/code"


def run_arguments(run: RunConfig) -> list[str]:
    """The options of `mission9 run` for the settings in `run`, except those that concern this machine only."""
    words: list[str] = []
    for name in RunConfig.model_fields:
        value = getattr(run, name)
        if name not in run.model_fields_set or name in _OF_HERE or value is None or value is False:
            continue
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)]
    return words


def cluster_request(job: Job) -> dict[str, Any]:
    """The arguments of `run_job_flow` of the client `emr`: a cluster that ends with its one step."""
    stack, machines = job.stack, job.machines
    return {
        "Name": job.name,
        "ReleaseLabel": job.release,
        "Applications": [{"Name": "Hadoop"}, {"Name": "Spark"}],
        "LogUri": f"s3://{stack['Bucket']}/logs/",
        "LogEncryptionKmsKeyId": stack["Key"],
        "SecurityConfiguration": stack["SecurityConfiguration"],
        "ServiceRole": stack["ServiceRole"],
        "JobFlowRole": stack["NodeProfile"],
        "VisibleToAllUsers": True,
        "AutoTerminationPolicy": {"IdleTimeout": IDLE_SECONDS},
        "EbsRootVolumeSize": 50,
        "Tags": [
            {"Key": "mission9", "Value": job.name},
            {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"},
        ],
        "BootstrapActions": [
            {
                "Name": "mission9",
                "ScriptBootstrapAction": {"Path": f"{job.code}/emr-bootstrap.sh", "Args": [job.code, "gpu"]},
            }
        ],
        "Configurations": [*configurations(), _environment(job)],
        "Instances": {
            "Ec2SubnetId": stack["Subnet"],
            "EmrManagedMasterSecurityGroup": stack["PrimaryGroup"],
            "EmrManagedSlaveSecurityGroup": stack["NodeGroup"],
            "ServiceAccessSecurityGroup": stack["ServiceGroup"],
            "KeepJobFlowAliveWhenNoSteps": False,
            "TerminationProtected": False,
            "InstanceGroups": _groups(machines),
        },
        "Steps": [_step(job)],
    }


def configurations() -> list[dict[str, Any]]:
    """The settings by which EMR schedules GPUs."""
    text = (files("mission9.deploy") / "files" / "emr-configurations.json").read_text("utf-8")
    found: list[dict[str, Any]] = json.loads(text)
    return found


def _environment(job: Job) -> dict[str, Any]:
    exports = {"Classification": "export", "Properties": {"AWS_REGION": job.region}}
    return {"Classification": "spark-env", "Properties": {}, "Configurations": [exports]}


def _groups(machines: Machines) -> list[dict[str, Any]]:
    groups = [
        {"Name": "primary", "InstanceRole": "MASTER", "InstanceType": machines.primary, "InstanceCount": 1},
        {"Name": "core", "InstanceRole": "CORE", "InstanceType": machines.gpu, "InstanceCount": 1},
    ]
    if machines.spot:
        task = {"Name": "task", "InstanceRole": "TASK", "InstanceType": machines.gpu, "InstanceCount": machines.spot}
        groups.append(task)
    return [{**group, "Market": "SPOT" if group["Name"] == "task" else "ON_DEMAND"} for group in groups]


def _step(job: Job) -> dict[str, Any]:
    settings = {"spark.pyspark.python": _PYTHON, "spark.pyspark.driver.python": _PYTHON}
    settings |= {f"spark.executorEnv.{name}": value for name, value in {"AWS_REGION": job.region, **WORKERS}.items()}
    command = ["timeout", "--signal=TERM", f"--kill-after={_GRACE}", str(round(job.max_hours * 3600))]
    command += ["spark-submit", "--master", "yarn", "--deploy-mode", "client", "--py-files", f"{job.code}/{PACKAGE}"]
    command += [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    command += [f"{job.code}/spark_main.py", *_program(job, "cuda")]
    return {
        "Name": "mission9 run",
        "ActionOnFailure": "TERMINATE_CLUSTER",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": command},
    }


def _program(job: Job, device: str) -> list[str]:
    return ["run", *([] if "device" in job.run.model_fields_set else ["--device", device]), *run_arguments(job.run)]


def stop_request(job: Job, cluster: str, now: datetime) -> dict[str, Any]:
    """The arguments of `create_schedule` of the client `scheduler`: Amazon ends the cluster in any case."""
    at = now + timedelta(hours=job.max_hours) + _START
    return {
        "Name": f"{job.name[:40]}-stop-{cluster}",
        "Description": f"the end of {cluster}, after --max-hours {job.max_hours:g} and its start",
        "ScheduleExpression": f"at({at:%Y-%m-%dT%H:%M:%S})",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": "arn:aws:scheduler:::aws-sdk:emr:terminateJobFlows",
            "RoleArn": job.stack["StopRole"],
            "Input": json.dumps({"JobFlowIds": [cluster]}),
        },
    }


def serverless_request(job: Job) -> dict[str, Any]:
    """The arguments of `start_job_run` of `emr-serverless`: the run on CPUs, ended by Amazon at its limit."""
    python = "./environment/bin/python"
    settings = {
        "spark.submit.pyFiles": f"{job.code}/{PACKAGE}",
        "spark.archives": f"{job.code}/environment.tar.gz#environment",
        "spark.executor.cores": "4",
        "spark.executor.memory": "8g",
    }
    for whose in ("spark.emr-serverless.driverEnv", "spark.executorEnv"):
        settings |= {f"{whose}.PYSPARK_PYTHON": python, f"{whose}.AWS_REGION": job.region}
    settings |= {"spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": python}
    settings |= {f"spark.executorEnv.{name}": value for name, value in WORKERS.items()}
    return {
        "applicationId": job.stack["ServerlessApplication"],
        "executionRoleArn": job.stack["ServerlessRole"],
        "name": job.name,
        "executionTimeoutMinutes": max(5, round(job.max_hours * 60)),
        "jobDriver": {
            "sparkSubmit": {
                "entryPoint": f"{job.code}/spark_main.py",
                "entryPointArguments": _program(job, "cpu"),
                "sparkSubmitParameters": " ".join(f"--conf {name}={value}" for name, value in settings.items()),
            }
        },
        "configurationOverrides": {
            "monitoringConfiguration": {
                "s3MonitoringConfiguration": {
                    "logUri": f"s3://{job.stack['Bucket']}/logs/",
                    "encryptionKeyArn": job.stack["Key"],
                }
            }
        },
        "tags": {"mission9": job.name},
    }


def most_it_costs(job: Job) -> float:
    """Dollars for a cluster that runs to its limit, with all machines on demand, at list prices."""
    primary, gpu = find_instances([job.machines.primary, job.machines.gpu])
    hourly = primary.price + primary.emr + (1 + job.machines.spot) * (gpu.price + gpu.emr)
    return hourly * (job.max_hours + _START.total_seconds() / 3600)


def uploads(wheel: Path) -> dict[str, Path]:
    """The files to upload to `code`, by their names there."""
    here = Path(str(files("mission9.deploy") / "files"))
    return {name: here / name for name in SCRIPTS} | {PACKAGE: wheel}
