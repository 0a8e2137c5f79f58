"""Refuse, before submission, runs that would fail on EMR, where each minute costs, or leave the European Union."""

from __future__ import annotations

import re

from mission9.config import RunConfig
from mission9.deploy.emr import OFFERED, REGIONS, RELEASE, Job, run_arguments
from mission9.errors import ConfigError
from mission9.privacy.policy import PLACES
from mission9.redact import redact
from mission9.storage.s3.address import address_of
from mission9.storage.s3.environment import is_loopback


def check_job(job: Job, *, serverless: bool = False) -> None:
    """Refuse a job that would fail there, or leave the European Union.

    Raises:
        ConfigError: a region, a release, a machine, a limit or a setting of the run is not valid.
    """
    if job.region not in REGIONS:
        raise ConfigError(f"--region {job.region} is not in the European Union: pass one of {', '.join(REGIONS)}")
    if not re.fullmatch(r"emr-(spark-)?\d+\.\d+\.\d+", job.release):
        raise ConfigError(f"--release {job.release} is not a release of EMR: pass one like {RELEASE}")
    if not 0 < job.max_hours <= 24:
        raise ConfigError(f"--max-hours {job.max_hours:g} is not valid: pass more than 0 and at most 24")
    if not 0 <= job.machines.spot <= 50:
        raise ConfigError(f"--spot-nodes {job.machines.spot} is not valid: pass 0 to 50")
    if serverless and job.run.device == "cuda":
        raise ConfigError("EMR Serverless has no GPUs: drop --device cuda or --serverless")
    family = job.machines.gpu.partition(".")[0]
    if not serverless and job.region not in OFFERED.get(family, ()):
        there = ", ".join(name for name, regions in OFFERED.items() if job.region in regions)
        raise ConfigError(f"--gpu-type {job.machines.gpu} is not offered in {job.region}: pass one of {there}")
    _check_run(job.run)


def check_places(job: Job) -> None:
    """Refuse places that the stack's machines cannot reach, once its outputs are known.

    Raises:
        ConfigError: a place is in another bucket, or the output is not writable for the machines.
    """
    bucket, results = job.stack["Bucket"], job.stack["Results"]
    for name in PLACES:
        place = address_of(getattr(job.run, name))
        if place and place.bucket != bucket:
            raise ConfigError(
                f"{_option(name)} {place} is outside the bucket of the stack {job.name}, s3://{bucket}, the only one "
                "that its machines reach: copy it there"
            )
    if not f"{job.run.output}/".startswith(f"{results}/"):
        raise ConfigError(f"the stack {job.name} cannot write to --output {job.run.output}: pass a prefix of {results}")


def _check_run(run: RunConfig) -> None:
    for name in PLACES:
        place = getattr(run, name)
        if name != "weights" and place is not None and not address_of(place):
            raise ConfigError(f"{_option(name)} {place} is on this machine: pass s3://BUCKET/PREFIX")
    if run.weights != "demo" and not address_of(run.weights):
        raise ConfigError(
            f"--weights {run.weights} cannot be downloaded there, without the internet: upload the file, and pass "
            "s3://BUCKET/FILE, preferably .safetensors"
        )
    if run.pseudonymise:
        raise ConfigError(
            f"--pseudonymise {run.pseudonymise}: the key must not leave this machine: drop the option, or run here "
            "with mission9 run"
        )
    if run.mlflow and (not run.mlflow.startswith(("http://", "https://")) or is_loopback(run.mlflow)):
        raise ConfigError(
            f"--mlflow {run.mlflow} (or MLFLOW_TRACKING_URI) would be lost with the cluster: drop it, and afterwards "
            "run mission9 log here"
        )
    for value in run_arguments(run):
        if redact(value) != value:
            raise ConfigError("a setting contains a password or a key, visible to every reader of the step: remove it")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
