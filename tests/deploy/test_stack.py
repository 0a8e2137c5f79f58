"""The CloudFormation template: linted for three regions, and the rules that no linter knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mission9.config import RunConfig
from mission9.deploy.emr import OFFERED, OUTPUTS, REGIONS, RELEASE, Job, cluster_request, configurations
from tests.conftest import REPOSITORY
from tests.support.optional import skip_without

if TYPE_CHECKING:
    from cfnlint.rules import Match

skip_without("cfnlint", "requirements-dev.txt")

TEMPLATE = REPOSITORY / "deploy/emr/stack.yaml"


def lint(template: Path, *regions: str) -> list[Match]:
    """The findings of cfn-lint, by what its program calls: in this process, as loading it takes longer than linting."""
    from cfnlint.api import lint_file
    from cfnlint.config import ManualArgs

    found: list[Match] = lint_file(template, config=ManualArgs(regions=list(regions)))
    return found


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    from cfnlint.decode import decode

    template, problems = decode(str(TEMPLATE))
    assert not problems
    return dict(template)


@pytest.fixture(scope="module")
def made(stack: dict[str, Any]) -> dict[str, Any]:
    """The properties of what the template makes, by name."""
    return {name: resource["Properties"] for name, resource in stack["Resources"].items()}


def test_it_is_clean_in_three_regions() -> None:
    assert lint(TEMPLATE, "eu-west-1", "eu-west-3", "eu-central-1") == []


def test_a_misspelt_property_is_found(tmp_path: Path) -> None:
    text, file = TEMPLATE.read_text(), tmp_path / "stack.yaml"
    assert "      AutoTerminationPolicy:" in text
    file.write_text(text.replace("      AutoTerminationPolicy:", "      AutoTerminationPolice:"))
    assert "E3002" in {match.rule.id for match in lint(file, "eu-west-1")}


def test_machines_are_offered_where_we_say(tmp_path: Path) -> None:
    """The cluster's group of tasks once for each family, linted for all regions at once: a finding names both."""
    file = tmp_path / "stack.yaml"
    group = re.search(r"^ +- \{Name: task, .* InstanceType: (!Ref GpuType), .*\n", TEMPLATE.read_text(), re.MULTILINE)
    assert group
    groups = "".join(group[0].replace(group[1], f"{family}.xlarge") for family in OFFERED)
    text = TEMPLATE.read_text().replace(group[0], groups)
    file.write_text(text)
    found = [match.message for match in lint(file, *REGIONS) if match.rule.id == "E3675"]
    told = [re.fullmatch(r"'(\w+)\.xlarge' is not one of .* in '([\w-]+)'", message) for message in found]
    assert {match and match.groups() for match in told} == {
        (family, region) for family, regions in OFFERED.items() for region in REGIONS if region not in regions
    }


def test_only_regions_of_the_union_are_allowed(stack: dict[str, Any]) -> None:
    (assertion,) = stack["Rules"]["EuropeanUnion"]["Assertions"]
    allowed, asked = assertion["Assert"]["Fn::Contains"]
    assert tuple(allowed) == REGIONS
    assert asked == {"Ref": "AWS::Region"}


def test_it_gives_out_what_the_command_asks_for(stack: dict[str, Any]) -> None:
    assert set(stack["Outputs"]) == set(OUTPUTS)
    assert stack["Parameters"]["Release"]["Default"] == RELEASE


def as_template(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Classifications under the names that CloudFormation has for the parts."""
    found = []
    for item in items:
        properties = {"ConfigurationProperties": item["Properties"]} if item["Properties"] else {}
        inner = {"Configurations": as_template(item["Configurations"])} if "Configurations" in item else {}
        found.append({"Classification": item["Classification"], **properties, **inner})
    return found


def test_the_standing_cluster_is_as_those_of_the_command(made: dict[str, Any]) -> None:
    names = {name: name for name in OUTPUTS}
    run = RunConfig(input="s3://my-bucket/images", output="s3://my-bucket/results", weights="demo")
    request = cluster_request(Job(name="mission9", region="eu-west-1", stack=names, run=run))
    cluster = made["Cluster"]
    assert cluster["Configurations"] == as_template(configurations())
    assert cluster["Applications"] == request["Applications"]
    for name in ("EbsRootVolumeSize", "VisibleToAllUsers"):
        assert cluster[name] == request[name]
    markets = {group["Name"]: group["Market"] for group in request["Instances"]["InstanceGroups"]}
    instances = cluster["Instances"]
    groups = [instances["MasterInstanceGroup"], instances["CoreInstanceGroup"], *instances["TaskInstanceGroups"]]
    assert {group["Name"]: group["Market"] for group in groups} == markets
    assert {tag["Key"] for tag in cluster["Tags"]} == {tag["Key"] for tag in request["Tags"]}


def test_the_standing_cluster_stops_when_idle(stack: dict[str, Any], made: dict[str, Any]) -> None:
    assert made["Cluster"]["AutoTerminationPolicy"] == {"IdleTimeout": {"Ref": "IdleSeconds"}}
    idle = stack["Parameters"]["IdleSeconds"]
    assert (idle["MinValue"], idle["MaxValue"]) == (60, 604800)
    assert made["Serverless"]["AutoStopConfiguration"] == {"Enabled": True, "IdleTimeoutMinutes": 15}


def test_nothing_is_sent_or_kept_in_the_clear(made: dict[str, Any]) -> None:
    denied = {s["Sid"]: s for s in made["BucketPolicy"]["PolicyDocument"]["Statement"] if s["Effect"] == "Deny"}
    assert denied["OnlyByTls"]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    encryption = made["SecurityConfiguration"]["SecurityConfiguration"]["EncryptionConfiguration"]
    at_rest = encryption["AtRestEncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    assert at_rest["S3EncryptionConfiguration"]["EncryptionMode"] == "SSE-KMS"
    assert at_rest["LocalDiskEncryptionConfiguration"]["EnableEbsEncryption"] is True
    assert made["Key"]["EnableKeyRotation"] is True
    for bucket in (made["Bucket"], made["AccessLogs"]):
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}


_SSE = "s3:x-amz-server-side-encryption"
_THE_KEY = {"Fn::GetAtt": ["Key", "Arn"]}


def is_met(operator: str, wanted: Any, given: Any) -> bool:
    """Return True if a condition of a policy holds for a request with a header, or without it."""
    if operator == "Null":
        return bool((given is None) == (wanted == "true"))
    if given is None:
        return operator.endswith("IfExists") or operator.startswith("StringNot")
    return bool(given == wanted) != operator.startswith("StringNot")


def is_denied(statements: list[dict[str, Any]], headers: dict[str, Any]) -> bool:
    """Return True if a bucket's policy denies a PUT over TLS with these headers."""
    return any(
        statement["Effect"] == "Deny"
        and statement["Action"] in ("s3:*", "s3:PutObject")
        and all(
            is_met(operator, wanted, headers.get(header))
            for operator, facts in statement["Condition"].items()
            for header, wanted in facts.items()
        )
        for statement in statements
    )


@pytest.mark.parametrize(
    ("headers", "goes"),
    [
        ({}, True),  # the bucket encrypts by the key
        ({_SSE: "aws:kms", f"{_SSE}-aws-kms-key-id": _THE_KEY}, True),
        ({_SSE: "aws:kms", f"{_SSE}-aws-kms-key-id": "arn:aws:kms:eu-west-1:1:key/another"}, False),
        ({f"{_SSE}-aws-kms-key-id": "arn:aws:kms:eu-west-1:1:key/another"}, False),
        ({_SSE: "aws:kms"}, False),  # by aws/s3
        ({_SSE: "aws:kms:dsse", f"{_SSE}-aws-kms-key-id": _THE_KEY}, False),
        ({_SSE: "AES256"}, False),
        ({f"{_SSE}-customer-algorithm": "AES256"}, False),
    ],
)
def test_what_is_put_is_encrypted_by_the_key(made: dict[str, Any], headers: dict[str, Any], goes: bool) -> None:
    by_tls = headers | {"aws:SecureTransport": "true"}
    assert is_denied(made["BucketPolicy"]["PolicyDocument"]["Statement"], by_tls) != goes


def test_the_subnet_has_no_way_to_the_internet(stack: dict[str, Any], made: dict[str, Any]) -> None:
    kinds = {resource["Type"] for resource in stack["Resources"].values()}
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route"}
    assert made["PrivateSubnet"]["MapPublicIpOnLaunch"] is False
    assert made["S3Endpoint"]["VpcEndpointType"] == "Gateway"
    assert made["S3Endpoint"]["RouteTableIds"] == [{"Ref": "Routes"}]
    metadata = made["SecurityConfiguration"]["SecurityConfiguration"]["InstanceMetadataServiceConfiguration"]
    assert metadata == {"MinimumInstanceMetadataServiceVersion": 2, "HttpPutResponseHopLimit": 1}
