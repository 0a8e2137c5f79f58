"""Find and delete what a bucket keeps that no listing shows: old versions of objects, and unfinished uploads."""

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
    """An upload in parts that was neither completed nor aborted; its parts lie in the bucket."""

    key: str
    upload: str


def versions_of(address: Address) -> list[Version]:
    """All versions of one object, and its delete markers.

    Raises:
        StorageError: they cannot be listed.
    """
    return [found for found in _below(address.bucket, address.key) if found.key == address.key]


def old_versions_below(prefix: Address) -> list[Version]:
    """Return what a bucket still keeps below a prefix of objects that were deleted or replaced, and all delete markers.

    Raises:
        StorageError: they cannot be listed.
    """
    return [found for found in _below(prefix.bucket, f"{prefix.key}/") if not found.is_current]


def last_changes_below(prefix: Address) -> Iterator[tuple[str, datetime]]:
    """Every key below a prefix of which a version is kept, deleted or not, and when its newest one came.

    Raises:
        StorageError: they cannot be listed.
    """
    kept = (found for found in _below(prefix.bucket, f"{prefix.key}/" if prefix.key else "") if not found.is_marker)
    for key, versions in groupby(kept, key=attrgetter("key")):  # servers list them by key
        yield key, max(version.changed for version in versions)


def delete_versions(bucket: str, versions: Sequence[Version]) -> None:
    """Delete versions for good.

    Raises:
        StorageError: one cannot be deleted.
    """
    client = control()
    for start in range(0, len(versions), _A_REQUEST):
        chosen = [{"Key": each.key, "VersionId": each.version} for each in versions[start : start + _A_REQUEST]]
        with _told(bucket, "s3:DeleteObjectVersion"):
            answer = client.delete_objects(Bucket=bucket, Delete={"Objects": chosen, "Quiet": True})
        for error in answer.get("Errors", []):
            raise StorageError(
                f"a version of an object in s3://{bucket} cannot be deleted ({error.get('Code')}): allow "
                "s3:DeleteObjectVersion, and see that no lock or retention holds it, then give the same command again"
            )


def unfinished_below(prefix: Address) -> list[Upload]:
    """Uploads below a prefix that never ended.

    Raises:
        StorageError: they cannot be listed.
    """
    pages: Any = (
        control().get_paginator("list_multipart_uploads").paginate(Bucket=prefix.bucket, Prefix=f"{prefix.key}/")
    )
    with _told(prefix.bucket, "s3:ListBucketMultipartUploads"):
        return [Upload(found["Key"], found["UploadId"]) for page in pages for found in page.get("Uploads", [])]


def abort(bucket: str, uploads: Sequence[Upload]) -> None:
    """Delete the parts of uploads that never ended.

    Raises:
        StorageError: one cannot be aborted.
    """
    client = control()
    for each in uploads:
        with _told(bucket, "s3:AbortMultipartUpload"), suppress(client.exceptions.NoSuchUpload):
            client.abort_multipart_upload(Bucket=bucket, Key=each.key, UploadId=each.upload)


def _below(bucket: str, prefix: str) -> Iterator[Version]:
    pages: Any = control().get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    with _told(bucket, "s3:ListBucketVersions"):
        for page in pages:
            for found in page.get("Versions", []):
                yield Version(found["Key"], found["VersionId"], bool(found.get("IsLatest")), found["LastModified"])
            for found in page.get("DeleteMarkers", []):
                yield Version(found["Key"], found["VersionId"], False, found["LastModified"], is_marker=True)


@contextmanager
def _told(bucket: str, action: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        raise StorageError(
            f"versions or unfinished uploads in s3://{bucket} cannot be seen or deleted ({code}): allow {action}, then "
            "give the same command again"
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"s3://{bucket} does not answer ({error}): give the same command again") from error
