from __future__ import annotations

from pathlib import Path

import pytest

from mission9.config import RunConfig
from mission9.doctor.checks import examine
from mission9.doctor.finding import Finding
from mission9.runners.spark_session import hadoop_aws
from tests.s3.conftest import Bucket
from tests.s3.faulty import Faults, faulty_server


def findings(what: str, **settings: object) -> list[Finding]:
    config = RunConfig(weights="demo", runner="local", **settings)
    return [finding for finding in examine(config) if finding.what.startswith(what)]


def test_a_bucket_that_is_fine(bucket: Bucket, tree: Path) -> None:
    address = bucket.upload(tree)
    found = findings("s3", input=address, output=f"{bucket}/out")
    assert [finding.what for finding in found] == [
        *("s3 credentials", "s3 region", "s3 bucket", "s3 output", "s3 readers"),
    ]
    assert {finding.status for finding in found} == {"ok"}
    assert "org.apache.hadoop:hadoop-aws:" in found[-1].found
    assert not [key for key in bucket.keys if key.startswith("out")]
    (images,) = findings("input", input=address, output=f"{bucket}/out")
    assert images.status == "ok"


def test_without_addresses_nothing_is_asked(tmp_path: Path) -> None:
    assert [finding.status for finding in findings("s3", output=str(tmp_path))] == ["ok"]


def test_a_missing_bucket_and_bad_credentials_have_remedies(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = findings("s3 bucket", input="s3://there-is-no-such", output=f"{bucket}/out")[0]
    assert (missing.status, missing.remedy) == ("problem", "create it, or pass another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (refused,) = findings("s3 bucket", input=f"{bucket}/images", output=f"{bucket}/out")
    assert refused.status == "problem"
    assert refused.remedy.startswith("renew them, then rerun the same command")


def test_what_is_forbidden_has_a_remedy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_server(bucket.server.port, Faults(forbidden="/out/")) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        (written,) = findings("s3 output", input=f"{bucket}/images", output=f"{bucket}/out")
    assert written.status == "problem"
    assert "s3:PutObject" in written.remedy


def test_the_version_of_hadoop_is_that_of_the_session(spark: object) -> None:
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    assert running is not None
    version = running._jvm.org.apache.hadoop.util.VersionInfo.getVersion()  # type: ignore[union-attr]
    assert hadoop_aws() == f"org.apache.hadoop:hadoop-aws:{version}"
