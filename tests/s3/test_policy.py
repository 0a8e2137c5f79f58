"""The checks of `--policy eu` on buckets of moto, which supports their settings, and of Swift, which does not."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.doctor.checks import examine
from mission9.errors import ConfigError, PolicyError, SetupError
from mission9.pipeline.run import run
from mission9.privacy.policy import PLACES, enforce_policy, examine_policy, policy_of
from tests.s3.conftest import Bucket

pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")

from mission9.privacy.bucket_checks import EU_REGIONS, denies_plain_http
from tests.s3.moto import KEYS, MotoBucket, make_bucket, moto_server, tls_policy


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(autouse=True)
def _environment(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": moto, "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def good(moto: str) -> MotoBucket:
    return make_bucket(moto)


def failures(place: MotoBucket | Bucket | str) -> dict[str, str]:
    checks = examine_policy(RunConfig(input=f"{place}/images"))
    assert [check.what for check in checks] == ["region", "encryption", "public access", "TLS"]
    assert all(bool(check.remedy) == (not check.is_met) for check in checks)
    return {check.what: check.found for check in checks if not check.is_met}


def test_it_is_asked_for_where_images_or_results_are_in_a_bucket() -> None:
    assert policy_of(RunConfig(input="images", output="out")) == "none"
    assert policy_of(RunConfig(input="s3://some/images", output="out")) == "eu"
    assert policy_of(RunConfig(input="images", output="s3://some/out")) == "eu"
    assert policy_of(RunConfig(input="s3://some/images", policy="none")) == "none"
    assert enforce_policy(RunConfig(input="images", policy="eu")) == {"name": "eu", "checks": []}


def test_a_bucket_as_it_should_be(good: MotoBucket) -> None:
    assert failures(good) == {}


def _no_encryption(bucket: MotoBucket) -> None:
    bucket.client.delete_bucket_encryption(Bucket=bucket.name)


def _key_elsewhere(bucket: MotoBucket) -> None:
    rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:key/1"}
    settings = {"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]}
    bucket.client.put_bucket_encryption(Bucket=bucket.name, ServerSideEncryptionConfiguration=settings)


def _no_block(bucket: MotoBucket) -> None:
    bucket.client.delete_public_access_block(Bucket=bucket.name)


def _half_a_block(bucket: MotoBucket) -> None:
    flags = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": False}
    bucket.client.put_public_access_block(Bucket=bucket.name, PublicAccessBlockConfiguration=flags)


def _policy_for_everybody(bucket: MotoBucket) -> None:
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    policy = tls_policy(bucket.name)
    policy["Statement"].append({**everybody, "Resource": f"arn:aws:s3:::{bucket.name}/*"})
    bucket.client.put_bucket_policy(Bucket=bucket.name, Policy=json.dumps(policy))


def _no_policy(bucket: MotoBucket) -> None:
    bucket.client.delete_bucket_policy(Bucket=bucket.name)


@pytest.mark.parametrize(
    ("spoil", "what", "found"),
    [
        (_no_encryption, "encryption", "none is set"),
        (_key_elsewhere, "encryption", "aws:kms with a key in us-east-1"),
        (_no_block, "public access", "none is set"),
        (_half_a_block, "public access", "BlockPublicPolicy, RestrictPublicBuckets not set"),
        (_policy_for_everybody, "public access", "its policy allows public access"),
        (_no_policy, "TLS", "its policy allows requests without TLS"),
    ],
)
def test_what_is_not_as_it_should_be_is_told(
    good: MotoBucket, spoil: Callable[[MotoBucket], None], what: str, found: str
) -> None:
    spoil(good)
    assert failures(good) == {what: found}


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2", "eu-central-2"])
def test_a_bucket_elsewhere_is_told(moto: str, region: str) -> None:
    assert region not in EU_REGIONS
    (told,) = failures(make_bucket(moto, region)).items()
    assert told == ("region", f"{region}, as {moto} says")


def test_a_run_begins_only_where_the_policy_is_met(good: MotoBucket, tree: Path, tmp_path: Path) -> None:
    for file in tree.rglob("*.jpg"):
        good.put(f"images/{file.relative_to(tree)}", file.read_bytes())
    settings: dict[str, Any] = {"output": str(tmp_path / "out"), "weights": "demo", "components": 3}
    run(RunConfig(input=f"{good}/images", no_report=True, **settings))
    told = json.loads((tmp_path / "out/run.json").read_bytes())["policy"]
    assert told["name"] == "eu"
    assert [(check["bucket"], check["what"], check["is_met"]) for check in told["checks"]] == [
        (good.name, what, True) for what in ("region", "encryption", "public access", "TLS")
    ]
    _no_block(good)
    other = settings | {"output": str(tmp_path / "other")}
    with pytest.raises(PolicyError, match=r"public access: none is set \(aws s3api put-public-access-block .*--policy"):
        run(RunConfig(input=f"{good}/images", **other))
    assert not (tmp_path / "other").exists()
    run(RunConfig(input=f"{good}/images", policy="none", no_report=True, **other))
    assert json.loads((tmp_path / "other/run.json").read_bytes())["policy"] == {"name": "none", "checks": []}


def test_each_bucket_of_a_run_is_looked_at(good: MotoBucket, moto: str) -> None:
    elsewhere = make_bucket(moto, "us-east-1")
    with pytest.raises(PolicyError) as caught:
        enforce_policy(RunConfig(input=f"{good}/images", output="out", weights=f"{elsewhere}/w.pth"))
    assert f"s3://{elsewhere.name}, region: us-east-1" in str(caught.value)
    assert good.name not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["az://us-box/photos", "abfs://box@account.dfs.core.windows.net/photos", "ftp://127.0.0.1:1/photos"]
)
def test_of_stores_that_tell_nothing_nothing_is_met(url: str) -> None:
    with pytest.raises(
        PolicyError, match="store: its location and access cannot be queried.*copy the images.*or pass --policy none"
    ) as told:
        run(RunConfig(input=url, output="out", weights="demo", policy="eu"))
    assert url.partition("://")[0] in str(told.value)
    (check,) = examine_policy(RunConfig(input=url, output="out", policy="eu"))
    assert (check.bucket, check.is_met) == (url, False)
    assert examine_policy(RunConfig(input=url, output="out")) == []
    found = [finding for finding in examine(RunConfig(input=url, policy="eu")) if finding.what == "s3 policy"]
    assert [finding.status for finding in found] == ["problem"]


def test_a_file_url_is_a_folder(tree: Path) -> None:
    assert enforce_policy(RunConfig(input="images", policy="eu").model_copy(update={"input": f"file://{tree}"})) == {
        "name": "eu",
        "checks": [],
    }


def test_a_bucket_is_looked_at_before_it_is_read(moto: str, tree: Path, tmp_path: Path) -> None:
    elsewhere = make_bucket(moto, "us-east-1")  # where there is no such estimate, which is not told
    settings: dict[str, Any] = {"input": str(tree), "output": str(tmp_path / "out"), "weights": "demo", "policy": "eu"}
    with pytest.raises(PolicyError, match=f"s3://{elsewhere.name}, region: us-east-1"):
        run(RunConfig(**settings, estimate=f"{elsewhere}/estimate.json"))


def test_no_setting_that_may_name_a_bucket_is_forgotten() -> None:
    no_places = {"mlflow", "master", "pseudonymise", "encrypt_key"}  # servers, and keys of this machine
    taken = set()
    for name, field in RunConfig.model_fields.items():
        if field.annotation in (str, str | None):
            with contextlib.suppress(ConfigError):
                taken |= {name} if getattr(RunConfig(**{name: "s3://some/place"}), name) else set()
    assert taken - no_places == set(PLACES)


def test_the_doctor_tells_it_and_the_command_ends_with_2(good: MotoBucket, capsys: pytest.CaptureFixture[str]) -> None:
    _no_encryption(good)
    config = RunConfig(input=f"{good}/images", output="out", weights="demo", runner="local")
    found = {finding.found: finding.status for finding in examine(config) if finding.what == "s3 policy"}
    assert found[f"s3://{good.name}, encryption: none is set"] == "problem"
    assert list(found.values()).count("ok") == 3
    assert main(["run", "--input", f"{good}/images", "--output", "out", "--weights", "demo"]) == 2
    words = capsys.readouterr().err
    assert "mission9: --policy eu failed" in words
    assert "planted-secret" not in words
    assert not Path("out").exists()


def test_a_server_without_such_settings_meets_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISSION9_POLICY")
    found = failures(bucket)
    assert found == {
        "encryption": "none is set",
        "public access": "this server does not support GetPublicAccessBlock",
        "TLS": "this server does not support GetBucketPolicy",
    }
    with pytest.raises(PolicyError, match="or pass --policy none if the data may be stored there"):
        run(RunConfig(input=f"{bucket}/images", output="out", weights="demo"))


def test_what_may_not_be_asked_names_the_permission(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.s3.faulty import Faults, faulty_server

    monkeypatch.delenv("MISSION9_POLICY")
    with faulty_server(bucket.server.port, Faults(forbidden=f"/{bucket.name}")) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        found = failures(bucket)
    words = "the credentials lack a permission: allow s3:"
    assert found == {
        "region": f"{words}ListBucket",
        "encryption": f"{words}GetEncryptionConfiguration",
        "public access": f"{words}GetBucketPublicAccessBlock",
        "TLS": f"{words}GetBucketPolicy",
    }


def test_a_server_that_is_gone_meets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert set(failures("s3://some-bucket")) == {"region", "encryption", "public access", "TLS"}


def test_without_boto3_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SetupError, match=r"pip install 'mission9\[s3\]'"):
        enforce_policy(RunConfig(input="s3://some-bucket/images"))


def _changed(**changes: Any) -> dict[str, Any]:
    policy = copy.deepcopy(tls_policy("b"))
    policy["Statement"][0].update(changes)
    return policy


@pytest.mark.parametrize(
    "policy",
    [
        tls_policy("b"),
        _changed(Principal={"AWS": "*"}, Action=["s3:*"], Resource="*"),
        {"Statement": [{"Effect": "Allow"}, tls_policy("b")["Statement"][0]]},
        {"Statement": tls_policy("b")["Statement"][0]},
        _changed(Condition={"BoolIfExists": {"AWS:securetransport": ["false"]}}),
    ],
)
def test_policies_that_deny_plain_http(policy: Any) -> None:
    assert denies_plain_http(policy, "b")


@pytest.mark.parametrize(
    "policy",
    [
        {},
        [],
        {"Statement": ["?"]},
        _changed(Effect="Allow"),
        _changed(Principal={"AWS": "arn:aws:iam::1:root"}),
        _changed(Action="s3:GetObject"),
        _changed(Resource="arn:aws:s3:::b/*"),
        _changed(Resource=["arn:aws:s3:::other", "arn:aws:s3:::other/*"]),
        _changed(Condition={"Bool": {"aws:SecureTransport": "true"}}),
        _changed(Condition={}),
        _changed(Condition={"Bool": {"aws:SecureTransport": "false"}, "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),
        _changed(Condition={"Bool": {"aws:SecureTransport": "false", "aws:ViaAWSService": "false"}}),
        _changed(Condition=None),
    ],
)
def test_policies_that_do_not(policy: Any) -> None:
    assert not denies_plain_http(policy, "b")
