"""Find and delete hidden data of a bucket: old versions of objects, and unfinished uploads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from mission9.errors import StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.admin_client import control

_A_REQUEST = 1000  # versions that one request deletes


class Version(NamedTuple):
    """A version of an object, or a delete marker."""

    key: str
    version: str
    is_current: bool
    changed: datetime
    is_marker: bool = False


class Upload(NamedTuple):
    """A multipart upload that was neither completed nor aborted; its parts are stored in the bucket."""

    key: str
    upload: str


def versions_of(address: Address) -> list[Version]:
    """All versions of one object, and its delete markers.

    Raises:
        StorageError: they cannot be listed.
    """
    return [found for found in _below(address.bucket, address.key) if found.key == address.key]


def old_versions_below(prefix: Address) -> list[Version]:
    """The old versions below a prefix, of deleted or replaced objects, and all delete markers.

    Raises:
        StorageError: they cannot be listed.
    """
    return [found for found in _below(prefix.bucket, f"{prefix.key}/") if not found.is_current]


def last_changes_below(prefix: Address) -> Iterator[tuple[str, datetime]]:
    """Every key below a prefix with a kept version, deleted or not, and the time of its newest version.

    Raises:
        StorageError: they cannot be listed.
    """
    kept = (found for found in _below(prefix.bucket, f"{prefix.key}/" if prefix.key else "") if not found.is_marker)
    for key, versions in groupby(kept, key=attrgetter("key")):  # servers sort them by key
        yield key, max(version.changed for version in versions)


def delete_versions(bucket: str, versions: Sequence[Version]) -> None:
    """Delete versions permanently.

    Raises:
        StorageError: one cannot be deleted.
    """
    client = control()
    for start in range(0, len(versions), _A_REQUEST):
        chosen = [{"Key": each.key, "VersionId": each.version} for each in versions[start : start + _A_REQUEST]]
        with _translate_errors(bucket, "s3:DeleteObjectVersion"):
            answer = client.delete_objects(Bucket=bucket, Delete={"Objects": chosen, "Quiet": True})
        for error in answer.get("Errors", []):
            raise StorageError(
                f"cannot delete an object version in s3://{bucket} ({error.get('Code')}): allow "
                "s3:DeleteObjectVersion, remove any lock or retention, then rerun the same command"
            )


def unfinished_below(prefix: Address) -> list[Upload]:
    """The unfinished uploads below a prefix.

    Raises:
        StorageError: they cannot be listed.
    """
    pages: Any = (
        control().get_paginator("list_multipart_uploads").paginate(Bucket=prefix.bucket, Prefix=f"{prefix.key}/")
    )
    with _translate_errors(prefix.bucket, "s3:ListBucketMultipartUploads"):
        return [Upload(found["Key"], found["UploadId"]) for page in pages for found in page.get("Uploads", [])]


def abort(bucket: str, uploads: Sequence[Upload]) -> None:
    """Abort unfinished uploads, which deletes their parts.

    Raises:
        StorageError: one cannot be aborted.
    """
    client = control()
    for each in uploads:
        with _translate_errors(bucket, "s3:AbortMultipartUpload"), suppress(client.exceptions.NoSuchUpload):
            client.abort_multipart_upload(Bucket=bucket, Key=each.key, UploadId=each.upload)


def _below(bucket: str, prefix: str) -> Iterator[Version]:
    pages: Any = control().get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    with _translate_errors(bucket, "s3:ListBucketVersions"):
        for page in pages:
            for found in page.get("Versions", []):
                yield Version(found["Key"], found["VersionId"], bool(found.get("IsLatest")), found["LastModified"])
            for found in page.get("DeleteMarkers", []):
                yield Version(found["Key"], found["VersionId"], False, found["LastModified"], is_marker=True)


@contextmanager
def _translate_errors(bucket: str, action: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        raise StorageError(
            f"cannot list or delete versions or unfinished uploads in s3://{bucket} ({code}): allow {action}, then "
            "rerun the same command"
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"s3://{bucket} does not answer ({error}): rerun the same command") from error
