"""Translate errors of obstore and boto3 into one line: which address, and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

from mission9.errors import ConfigError, Mission9Error, StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.environment import ROLE_ADDRESSES, credentials_told, endpoint, region

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

# Where Amazon's machines, and containers, ask for the credentials of their role.
_METADATA_HOSTS = {"169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"}
_METADATA_PATHS = ("/latest/api/token", "/latest/meta-data/iam/")

_BAD_CREDENTIALS = {
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
}

# What a server says to whoever asks, or signs, for another region than that of the bucket.
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}

_AGAIN = "then give the same command again, which goes on where this one stopped"

_WORDS: dict[ErrorKind, str] = {
    "forbidden": "these credentials may not do that (403): allow s3:ListBucket for the bucket, s3:GetObject to read, "
    "and s3:PutObject and s3:DeleteObject where results go",
    "archived": "it is archived (a storage class such as Glacier): restore it first, with aws s3api restore-object or "
    "S3 Batch Operations, and run again",
    "wrong clock": f"the server says that the clock of this machine is wrong: set it, {_AGAIN}",
}


@contextmanager
def told(address: Address, kind: type[Mission9Error] = StorageError) -> Iterator[None]:
    """Turn what a server answers about an address into an error of a kind.

    Raises:
        Mission9Error: of that kind, in the place of what obstore raises.
        ConfigError: the bucket is in another region than the one that is set.
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
    """Return what kind of trouble an error of obstore or boto3 tells; None if it is another's."""
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
    if said is None and isinstance(error, UnauthenticatedError):  # of what would renew the credentials
        return "unknown key"
    return said or ("gone" if is_gone else _trouble_before_an_answer(text))


def _trouble_with_credentials(text: str) -> ErrorKind | None:
    """The trouble where it is not the bucket's server that answered, but the address that gives a role's credentials.

    What that answers, 403 or 404, says nothing of the bucket.
    """
    url = urlsplit(_first(_ASKED, text))
    is_of_bucket = url.netloc == urlsplit(endpoint()).netloc or ".s3." in f".{url.hostname}"
    is_metadata = "InstanceCredential" in text or (url.hostname or "") in _METADATA_HOSTS
    is_metadata |= not is_of_bucket and url.path.startswith(_METADATA_PATHS)
    # Without an address: what the metadata address answers is no credentials.
    is_metadata |= not credentials_told() and "HTTP error: " in text and not url.netloc
    is_role = url.geturl().startswith(tuple(filter(None, map(os.environ.get, ROLE_ADDRESSES))) or ("no address",))
    is_role |= not is_of_bucket and (url.hostname or "").startswith("sts.")
    if is_role or (is_metadata and credentials_told()):
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
    """Return what the code and the status of an answer mean."""
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
    """Return what went wrong with which address, and what to do."""
    if trouble in _WORDS:
        return f"{address}: {_WORDS[trouble]}"
    where = f" of {endpoint()}" if endpoint() else ""
    match trouble:
        case "no bucket":
            return f"{address}: there is no bucket {address.bucket}{where}: make it, or give another"
        case "unknown key":
            whose, code = credentials_told() or "of this machine's role", _first(_CODE, str(error)) or _code(error)
            what = f"the server does not accept the credentials {whose} ({code})"
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
                f"{address}: there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE; or give this machine a role; or set AWS_SKIP_SIGNATURE to true where the bucket is public"
            )
        case "gone":
            return f"{address} is not there (404): see who deletes it"
        case "there":
            return f"{address} is there already, made by another meanwhile: see who does that"
        case "unusable key":
            what = str(error).partition("\n")[0].rpartition("rror parsing ")[2]
            return (
                f"{address}: a key with empty names, . or .., or what does not print ({what}): rename it, or "
                "pip install 'mission9[s3]', which can read it"
            )
        case _:
            return f"{address}: the server{where} fails again and again ({_why(error)}): see to it, {_AGAIN}"


def _why(error: Exception) -> str:
    """Tell the answer of a server that is asked in vain, or why there is none: 501 where it knows no such request."""
    text = str(error).partition("\n")[0]
    status = _first(_STATUS, text)
    return f"it answers {status}" if status else text.rpartition(" - ")[2].strip()[:200]


def _code(error: Exception) -> str:
    """The code of an answer that boto3 tells of."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
