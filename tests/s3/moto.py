"""An S3 server on the loopback that knows the settings of buckets: moto, an emulator of Amazon's control plane."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "planted-secret"}


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of a server that runs until the end of the context."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def client_of(url: str, region: str = "eu-west-1") -> Any:
    import boto3

    names = {name.lower(): value for name, value in KEYS.items()}
    return boto3.client("s3", endpoint_url=url, region_name=region, **names)


def tls_policy(bucket: str) -> dict[str, Any]:
    # Moto takes no notice of conditions, and would deny all requests; unlike Amazon it cares for the case of actions.
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "S3:*",
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


@dataclass(frozen=True)
class MotoBucket:
    """A bucket of a test's own on such a server."""

    url: str
    name: str

    @property
    def client(self) -> Any:
        return client_of(self.url)

    def __str__(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def versions(self, prefix: str = "") -> list[str]:
        """Keys of all versions and delete markers."""
        found = self.client.list_object_versions(Bucket=self.name, Prefix=prefix)
        return [each["Key"] for each in found.get("Versions", []) + found.get("DeleteMarkers", [])]


def make_bucket(url: str, region: str = "eu-west-1") -> MotoBucket:
    """A bucket as the policy has it."""
    name, client = f"test-{uuid.uuid4().hex[:12]}", client_of(url, region)
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client.create_bucket(Bucket=name, **where)
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    client.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=encryption)
    blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(blocks, True))
    client.put_bucket_policy(Bucket=name, Policy=json.dumps(tls_policy(name)))
    return MotoBucket(url, name)
