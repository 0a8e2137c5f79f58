"""Check buckets for problems that would stop a run: one finding a line, for the doctor."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from mission9.config import RunConfig
from mission9.doctor.finding import Finding
from mission9.errors import Mission9Error
from mission9.privacy.policy import buckets_of, examine_policy
from mission9.runners.spark_session import hadoop_aws
from mission9.storage.s3.address import Address, address_of
from mission9.storage.s3.environment import describe_credentials, endpoint, region
from mission9.storage.s3.lease import check_server
from mission9.storage.s3.listing import list_below
from mission9.storage.s3.objects import delete, put
from mission9.system import installed

_WHAT = "s3"


def examine_s3(config: RunConfig) -> Iterator[Finding]:
    """Check the buckets of a run, and its access to them; a single finding if it has none."""
    buckets = buckets_of(config)
    if not buckets:
        yield Finding(_WHAT, "ok", "not used: no place is in a bucket")
        yield from _policy(config)
        return
    if installed("obstore") is None:
        yield Finding(_WHAT, "problem", "obstore is not installed", "pip install 'mission9[s3]'")
        return
    yield _credentials()
    yield _region()
    for bucket in buckets:
        yield _reached(Address(bucket))
    yield from _policy(config)
    if output := address_of(config.output):
        yield _written(output)
        yield _readers()


def _credentials() -> Finding:
    if told := describe_credentials():
        return Finding("s3 credentials", "ok", told)
    remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; on a machine with a role, ignore this"
    return Finding(
        "s3 credentials", "warning", "none in the environment or a profile: this machine's role is used", remedy
    )


def _region() -> Finding:
    where = endpoint() or "Amazon"
    if region() or endpoint():
        return Finding("s3 region", "ok", f"{region() or 'none, the server decides'}, at {where}")
    return Finding("s3 region", "warning", "not set: us-east-1 is assumed", "set AWS_REGION to that of your bucket")


def _reached(bucket: Address) -> Finding:
    try:
        next(list_below(bucket), None)
    except Mission9Error as error:
        return _problem("s3 bucket", error)
    return Finding("s3 bucket", "ok", f"{bucket} can be listed")


def _policy(config: RunConfig) -> Iterator[Finding]:
    try:
        checks = examine_policy(config)
    except Mission9Error as error:
        yield _problem("s3 policy", error)
        return
    for check in checks:
        remedy = "" if check.is_met else f"{check.remedy}; or pass --policy none"
        yield Finding("s3 policy", "ok" if check.is_met else "problem", check.text, remedy)


def _written(output: Address) -> Finding:
    probe = output / "_state" / f"doctor-{uuid.uuid4().hex}"
    try:
        put(probe, b"mission9")
        delete([probe])
        check_server(probe.parent)
    except Mission9Error as error:
        return _problem("s3 output", error)
    return Finding("s3 output", "ok", f"{output} is writable and supports locks")


def _readers() -> Finding:
    """The package that Spark needs to read the tables; pyarrow, DuckDB and Polars need none."""
    package = hadoop_aws()
    text = f"Spark reads the tables as s3a:// with --packages {package}" if package else "Spark is not installed"
    return Finding("s3 readers", "ok", f"{text}; pyarrow, DuckDB and Polars need nothing more")


def _problem(what: str, error: Mission9Error) -> Finding:
    text, _, remedy = str(error).rpartition(": ")
    return Finding(what, "problem", text, remedy)
