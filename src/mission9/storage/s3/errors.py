"""Translate obstore and boto3 exceptions into one-line errors with a remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

from mission9.errors import ConfigError, Mission9Error, StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.environment import ROLE_ADDRESSES, describe_credentials, endpoint, region

ErrorKind = Literal[
    "gone",
    "there",
    "no bucket",
    "elsewhere",
    "forbidden",
    "archived",
    "wrong clock",
    "unknown key",
    "no credentials",
    "unusable key",
    "unknown request",
    "unavailable",
]

_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_ASKED = re.compile(r"Error performing [A-Z]+ (\S+) in ")

# The addresses at which Amazon's machines, and containers, obtain the credentials of their role.
_METADATA_HOSTS = {"169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"}
_METADATA_PATHS = ("/latest/api/token", "/latest/meta-data/iam/")

_BAD_CREDENTIALS = {
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
}

# A server's answers to a request made, or signed, for another region than the bucket's.
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}

_AGAIN = "then rerun the same command to resume"

_WORDS: dict[ErrorKind, str] = {
    "forbidden": "the credentials lack a permission (403): allow s3:ListBucket on the bucket, s3:GetObject for input, "
    "and s3:PutObject and s3:DeleteObject for results",
    "archived": "the object is archived (a storage class such as Glacier): restore it with aws s3api restore-object or "
    "S3 Batch Operations, then rerun",
    "wrong clock": f"the server reports a wrong clock on this machine: set the clock, {_AGAIN}",
}


@contextmanager
def translate_errors(address: Address, kind: type[Mission9Error] = StorageError) -> Iterator[None]:
    """Turn obstore's exceptions about an address into an error of a kind.

    Raises:
        Mission9Error: (`kind`) in place of obstore's exception.
        ConfigError: the bucket is in another region than the configured one.
    """
    try:
        yield
    except Exception as error:
        trouble = error_kind(error)
        if trouble is None:
            raise
        kind = ConfigError if trouble == "elsewhere" else kind
        raise kind(describe_error(trouble, address, error)) from error


def error_kind(error: Exception) -> ErrorKind | None:
    """Classify an exception of obstore or boto3; None for any other."""
    if type(error).__module__.startswith("botocore"):
        return _trouble_of_boto3(error)
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError, UnauthenticatedError

    text = str(error)
    is_gone = isinstance(error, FileNotFoundError) and text.startswith("Object at location")
    if isinstance(error, ValueError) and text.startswith("Could not parse path"):
        return "unusable key"
    if not (is_gone or isinstance(error, BaseError)):
        return None
    if isinstance(error, AlreadyExistsError | PreconditionError):
        return "there"
    if of_credentials := _trouble_with_credentials(text):
        return of_credentials
    said = _trouble_said(_first(_CODE, text), _first(_STATUS, text))
    if said is None and isinstance(error, UnauthenticatedError):  # from the server that renews the credentials
        return "unknown key"
    return said or ("gone" if is_gone else _trouble_before_an_answer(text))


def _trouble_with_credentials(text: str) -> ErrorKind | None:
    """Classify an answer that came from the server of a role's credentials, not from the bucket's.

    Its status, 403 or 404, says nothing about the bucket.
    """
    url = urlsplit(_first(_ASKED, text))
    is_of_bucket = url.netloc == urlsplit(endpoint()).netloc or ".s3." in f".{url.hostname}"
    is_metadata = "InstanceCredential" in text or (url.hostname or "") in _METADATA_HOSTS
    is_metadata |= not is_of_bucket and url.path.startswith(_METADATA_PATHS)
    # Without an address: the metadata server's answer held no credentials.
    is_metadata |= not describe_credentials() and "HTTP error: " in text and not url.netloc
    is_role = url.geturl().startswith(tuple(filter(None, map(os.environ.get, ROLE_ADDRESSES))) or ("no address",))
    is_role |= not is_of_bucket and (url.hostname or "").startswith("sts.")
    if is_role or (is_metadata and describe_credentials()):
        return "unknown key"
    return "no credentials" if is_metadata else None


def _trouble_of_boto3(error: Exception) -> ErrorKind:
    from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, SSOError, TokenRetrievalError

    if isinstance(error, NoCredentialsError):
        return "no credentials"
    if isinstance(error, CredentialRetrievalError | SSOError | TokenRetrievalError):
        return "unknown key"
    status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return _trouble_said(_code(error), str(status)) or "unavailable"


def _trouble_said(code: str, status: str) -> ErrorKind | None:
    """Classify an answer by its code and status."""
    if code == "NoSuchBucket":
        return "no bucket"
    if code in _BAD_CREDENTIALS:
        return "unknown key"
    if code in _ELSEWHERE or status == "301":
        return "elsewhere"
    if code == "NotImplemented" or status == "501":
        return "unknown request"
    if code == "InvalidObjectState":
        return "archived"
    if code == "RequestTimeTooSkewed":
        return "wrong clock"
    if status in ("401", "403"):
        return "forbidden"
    return "gone" if status == "404" else None


def _trouble_before_an_answer(text: str) -> ErrorKind:
    if "incorrectly configured region" in text:
        return "elsewhere"
    return "unusable key" if "Error parsing Path" in text or "empty path segment" in text else "unavailable"


def describe_error(trouble: ErrorKind, address: Address, error: Exception) -> str:
    """Describe a failure: the address, the problem and the remedy."""
    if trouble in _WORDS:
        return f"{address}: {_WORDS[trouble]}"
    where = f" of {endpoint()}" if endpoint() else ""
    match trouble:
        case "no bucket":
            return f"{address}: the bucket {address.bucket}{where} does not exist: create it, or pass another"
        case "unknown key":
            whose, code = describe_credentials() or "of this machine's role", _first(_CODE, str(error)) or _code(error)
            what = f"the server rejects the credentials {whose} ({code})"
            if not code:
                what = f"the credentials {whose} cannot be renewed ({_why(error)})"
            return f"{address}: {what}: renew them, {_AGAIN}"
        case "elsewhere":
            return (
                f"{address}: the bucket {address.bucket} is in another region than {region() or 'us-east-1'}: set "
                "AWS_REGION to that of the bucket"
            )
        case "no credentials":
            return (
                f"{address}: no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or "
                "a machine role; for a public bucket, set AWS_SKIP_SIGNATURE to true"
            )
        case "gone":
            return f"{address} is gone (404): find the process that deletes it"
        case "there":
            return f"{address} already exists: another process created it during this run; find it"
        case "unusable key":
            what = str(error).partition("\n")[0].rpartition("rror parsing ")[2]
            return (
                f"{address}: the key contains an empty name, . or .., or unprintable characters ({what}): rename it, "
                "or pip install 'mission9[s3]', which can read it"
            )
        case _:
            return f"{address}: repeated errors of the server{where} ({_why(error)}): fix it, {_AGAIN}"


def _why(error: Exception) -> str:
    """The answer of a failing server, or the reason for none; a server that lacks a request answers 501."""
    text = str(error).partition("\n")[0]
    status = _first(_STATUS, text)
    return f"it answers {status}" if status else text.rpartition(" - ")[2].strip()[:200]


def _code(error: Exception) -> str:
    """The error code of boto3's exception."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
