"""The permissions of the stack's machines, compared with a run's requests to a bucket: all of them, and little more."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mission9.config import RunConfig
from mission9.pipeline.run import run
from tests.conftest import REPOSITORY, InProcessRunner

pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mission9[s3]'")

from mission9.privacy import bucket_checks as asked
from mission9.storage.s3.admin_client import control
from tests.s3.moto import KEYS, MotoBucket, make_bucket, moto_server


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> MotoBucket:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": moto, "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    return make_bucket(moto)


def resolved(value: Any, parameters: dict[str, str]) -> Any:
    """A part of the template, with the ARN of a bucket named `b`, and the parameters' defaults."""
    if isinstance(value, list):
        return [resolved(each, parameters) for each in value]
    if not isinstance(value, dict):
        return value
    if "Fn::GetAtt" in value:
        return f"arn:aws:s3:::{'b' if value['Fn::GetAtt'][0] == 'Bucket' else 'another'}"
    if "Fn::Sub" in value:
        text = value["Fn::Sub"].replace("${Bucket.Arn}", "arn:aws:s3:::b")
        return re.sub(r"\$\{(\w+)\}", lambda match: parameters[match[1]], text)
    return {name: resolved(each, parameters) for name, each in value.items()}


@pytest.fixture(scope="module")
def statements() -> list[dict[str, Any]]:
    pytest.importorskip("cfnlint", reason="cfn-lint is not installed")
    from cfnlint.decode import decode

    template, problems = decode(str(REPOSITORY / "deploy/emr/stack.yaml"))
    assert not problems
    parameters = {name: str(facts.get("Default")) for name, facts in template["Parameters"].items()}
    written = template["Resources"]["WorkPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    found: list[dict[str, Any]] = resolved(json.loads(json.dumps(written)), parameters)
    return found


def may(statements: list[dict[str, Any]], action: str, place: str) -> bool:
    """Return True if the statements allow the action on `b`, or on b/KEY."""

    def says(effect: str) -> bool:
        return any(
            statement["Effect"] == effect
            and any(fnmatchcase(action, each) for each in _listed(statement["Action"]))
            and any(fnmatchcase(f"arn:aws:s3:::{place}", each) for each in _listed(statement["Resource"]))
            for statement in statements
        )

    return says("Allow") and not says("Deny")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_the_policy_of_a_run_may_ask_all_that_it_asks(
    bucket: MotoBucket, statements: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = []

    def recording() -> Any:
        client = control()
        client.meta.events.register("before-call.s3", lambda model, **_: operations.append(model.name))
        return client

    monkeypatch.setattr(asked, "control", recording)
    checks = list(asked.check_bucket(bucket.name))
    assert all(check.is_met for check in checks), checks
    assert len(operations) >= len(checks)
    actions = {f"s3:{asked._ACTIONS.get(name, name)}" for name in operations}
    assert [action for action in sorted(actions) if not may(statements, action, "b")] == []


# What is asked of a bucket's settings, by the parameter that names them.
_OF_SETTINGS = {
    "encryption": "s3:GetEncryptionConfiguration",
    "publicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "policyStatus": "s3:GetBucketPolicyStatus",
    "policy": "s3:GetBucketPolicy",
    "location": "s3:GetBucketLocation",
}
_OF_OBJECTS = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject"}


def action_of(method: str, target: str) -> tuple[str, str]:
    """The action of IAM that a request to a server needs, and the object or bucket."""
    parts = urlsplit(target)
    name, _, key = parts.path.strip("/").partition("/")
    asked = parse_qs(parts.query, keep_blank_values=True)
    if key:
        ends = "s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject"
        return ends if method == "DELETE" else _OF_OBJECTS[method], f"{name}/{key}"
    settings = [action for setting, action in _OF_SETTINGS.items() if setting in asked]
    if method == "POST" and "delete" in asked:  # its keys are in its body: below what is written, or it writes less
        return "s3:DeleteObject", f"{name}/results/any"
    return (settings or ["s3:ListBucket"])[0], name


@pytest.mark.slow
def test_a_run_may_do_all_that_it_does(
    bucket: MotoBucket,
    statements: list[dict[str, Any]],
    tree: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mission9.storage.s3.lease._SETTLE", 0)  # nobody else makes the lock
    for file in tree.rglob("*.jpg"):
        bucket.put(f"images/{file.relative_to(tree)}", file.read_bytes())
    settings: dict[str, Any] = {"weights": "demo", "components": 3}
    caplog.clear()
    with caplog.at_level(logging.INFO, "werkzeug"):
        for overwrite in (False, True):
            run(
                RunConfig(input=f"{bucket}/images", output=f"{bucket}/results", overwrite=overwrite, **settings),
                InProcessRunner(),
            )
    lines = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    done = {action_of(*found.groups()) for line in lines if (found := re.search(r'"?\b([A-Z]+) (/\S*) HTTP/', line))}
    done = {(action, place.replace(bucket.name, "b", 1)) for action, place in done}
    actions = {action for action, _ in done}
    assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:GetBucketPolicy"} <= actions
    assert [each for each in sorted(done) if not may(statements, *each)] == []


@pytest.mark.parametrize(
    "key", ["code/emr-bootstrap.sh", "code/wheelhouse/torch.whl", "images/Training/a/1.jpg", "imagenet.safetensors"]
)
def test_machines_change_neither_code_nor_images_nor_weights(key: str, statements: list[dict[str, Any]]) -> None:
    assert may(statements, "s3:GetObject", f"b/{key}")
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectAcl"):
        assert not may(statements, action, f"b/{key}")


def test_logs_are_written_and_not_deleted(statements: list[dict[str, Any]]) -> None:
    assert may(statements, "s3:PutObject", "b/logs/j-1/steps/s-1/stdout.gz")
    assert not may(statements, "s3:DeleteObject", "b/logs/j-1/steps/s-1/stdout.gz")


def test_results_may_not_be_where_code_is(statements: list[dict[str, Any]]) -> None:
    wide = json.loads(json.dumps(statements).replace("/results/*", "/*"))
    assert may(wide, "s3:PutObject", "b/elsewhere")
    assert not may(wide, "s3:PutObject", "b/code/emr-bootstrap.sh")
