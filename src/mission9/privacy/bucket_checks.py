"""Check that a bucket stores its data in the EU, encrypted, without public access, and requires TLS.

A setting that the server does not reveal fails its check.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from mission9.errors import StorageError
from mission9.privacy.check import Check
from mission9.storage.s3.address import Address
from mission9.storage.s3.admin_client import control
from mission9.storage.s3.environment import endpoint, is_loopback
from mission9.storage.s3.errors import ErrorKind, describe_error, error_kind

# In member states of the EU. eu-west-2 (London) and eu-central-2 (Zurich) are not, despite their names.
EU_REGIONS = frozenset(
    ("eu-central-1", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-3", "eusc-de-east-1")
)

_ENCRYPTED = frozenset(("AES256", "aws:kms", "aws:kms:dsse"))
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")

Found = tuple[bool, str]

_OF_ALL: set[ErrorKind | None] = {"no credentials", "unknown key", "no bucket"}

_REMEDIES = {
    "region": f"move the data to a bucket in one of {', '.join(sorted(EU_REGIONS))}",
    "encryption": "aws s3api put-bucket-encryption with AES256 or aws:kms, and a key in the EU",
    "public access": "aws s3api put-public-access-block with all four flags true, and no public policy",
    "TLS": 'set a bucket policy that denies s3:* to Principal "*" on the bucket and all objects if '
    "aws:SecureTransport is false, and use https://",
}


def check_bucket(bucket: str) -> Iterator[Check]:
    """Run every check on a bucket.

    Raises:
        SetupError: boto3 is not installed.
        StorageError: the bucket cannot be queried: no credentials, no bucket, or no server.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = control()
    for what, look in _LOOKS.items():
        try:
            is_met, found = look(client, bucket)
        except ClientError as error:
            _check_is_of_one(error, bucket)
            is_met, found = False, _in_words(error)
        except (BotoCoreError, ValueError) as error:
            _check_is_of_one(error, bucket)
            is_met, found = False, f"cannot be queried: {error}"
        yield Check(bucket, what, is_met, found, "" if is_met else _REMEDIES[what])


def _check_is_of_one(error: Exception, bucket: str) -> None:
    """Raise an error that would answer every query on a bucket alike, since its settings are not the cause.

    Raises:
        StorageError: the problem and its remedy, once.
    """
    from botocore.exceptions import HTTPClientError

    trouble = error_kind(error)
    if trouble in _OF_ALL or isinstance(error, HTTPClientError):
        raise StorageError(describe_error(trouble or "unavailable", Address(bucket), error)) from error


def _region(client: Any, bucket: str) -> Found:
    found = client.head_bucket(Bucket=bucket).get("BucketRegion")
    if found is None:  # a server other than Amazon's
        place = client.get_bucket_location(Bucket=bucket).get("LocationConstraint")
        found = {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}.get(place, place)
    return found in EU_REGIONS, f"{found}, as {endpoint()} says" if endpoint() else str(found)


def _encryption(client: Any, bucket: str) -> Found:
    answer = client.get_bucket_encryption(Bucket=bucket).get("ServerSideEncryptionConfiguration", {})
    rules = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in answer.get("Rules", [])]
    if not rules:
        return False, "none is set"
    told = []
    for rule in rules:
        algorithm, key = rule.get("SSEAlgorithm", "none"), rule.get("KMSMasterKeyID", "")
        where = key.split(":")[3] if key.startswith("arn:") and key.count(":") > 4 else ""
        if algorithm not in _ENCRYPTED or (where and where not in EU_REGIONS):
            return False, f"{algorithm}{f' with a key in {where}' if where else ''}"
        told.append(f"{algorithm}{f', key in {where}' if where else ''}")
    return True, ", ".join(told)


def _public_access(client: Any, bucket: str) -> Found:
    flags = client.get_public_access_block(Bucket=bucket).get("PublicAccessBlockConfiguration", {})
    missing = [name for name in _BLOCKS if flags.get(name) is not True]
    if missing:
        return False, f"{', '.join(missing)} not set"
    if _asked(client.get_bucket_policy_status, bucket, "NoSuchBucketPolicy").get("PolicyStatus", {}).get("IsPublic"):
        return False, "its policy allows public access"
    return True, "blocked"


def _tls(client: Any, bucket: str) -> Found:
    url = endpoint()
    if url.lower().startswith("http://") and not is_loopback(url):
        return False, f"{url} is not encrypted"
    text = _asked(client.get_bucket_policy, bucket, "NoSuchBucketPolicy").get("Policy")
    if not text or not denies_plain_http(json.loads(text), bucket):
        return False, "its policy allows requests without TLS"
    return True, "requests without it are denied"


_LOOKS: dict[str, Callable[[Any, str], Found]] = {
    "region": _region,
    "encryption": _encryption,
    "public access": _public_access,
    "TLS": _tls,
}


def denies_plain_http(policy: Any, bucket: str) -> bool:
    """Return True if a bucket's policy denies everyone every action without TLS, on the bucket and its objects."""
    statements = policy.get("Statement", []) if isinstance(policy, dict) else []
    return any(_denies(statement, bucket) for statement in _listed(statements) if isinstance(statement, dict))


def _denies(statement: dict[str, Any], bucket: str) -> bool:
    resources = {str(name).partition(":::")[2] or str(name) for name in _listed(statement.get("Resource"))}
    covers = "*" in resources or f"{bucket}*" in resources or {bucket, f"{bucket}/*"} <= resources
    return (
        statement.get("Effect") == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and any(str(action).lower() in ("*", "s3:*") for action in _listed(statement.get("Action")))
        and covers
        and _is_without_tls(statement.get("Condition"))
    )


def _is_without_tls(condition: Any) -> bool:
    """Return True if a condition matches all requests without TLS: it must be the only one, since all must match."""
    if not isinstance(condition, dict) or len(condition) != 1:
        return False
    ((operator, asked),) = condition.items()
    if operator not in ("Bool", "BoolIfExists") or not isinstance(asked, dict) or len(asked) != 1:
        return False
    ((key, values),) = asked.items()
    return key.lower() == "aws:securetransport" and "false" in [str(value).lower() for value in _listed(values)]


def _asked(ask: Callable[..., Any], bucket: str, absent: str) -> dict[str, Any]:
    """The server's answer; empty if the setting does not exist."""
    from botocore.exceptions import ClientError

    try:
        answer: dict[str, Any] = ask(Bucket=bucket)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != absent:
            raise
        return {}
    return answer


# Error codes for absent settings.
_UNSET = ("ServerSideEncryptionConfigurationNotFoundError", "NoSuchPublicAccessBlockConfiguration")

# The IAM action that an operation requires, where its name is not s3: plus the operation's.
_ACTIONS = {
    "HeadBucket": "ListBucket",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
}


def _in_words(error: Any) -> str:
    operation, code = error.operation_name, str(error.response.get("Error", {}).get("Code", "unknown"))
    if code in _UNSET:
        return "none is set"
    if code in ("403", "AccessDenied", "AllAccessDisabled"):
        return f"the credentials lack a permission: allow s3:{_ACTIONS.get(operation, operation)}"
    if code in ("NotImplemented", "501", "MethodNotAllowed"):
        return f"this server does not support {operation}"
    return f"{operation} failed with {code}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
