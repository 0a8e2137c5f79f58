"""A real S3 server on the loopback, OpenStack Swift, for the tests in this folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

obstore = pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mission9[s3]'")

from scripts.s3_server import Server, find_swift, s3_server  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if find_swift() is None:
        pytest.skip("swift is not installed, the S3 server of these tests: make s3-server")
    with s3_server(tmp_path_factory.mktemp("swift") / "server") as server:
        yield server


@dataclass(frozen=True)
class Bucket:
    """A bucket of a test's own, which the environment of the test leads to."""

    name: str
    server: Server

    def __str__(self) -> str:
        return f"s3://{self.name}"

    @property
    def keys(self) -> list[str]:
        return sorted(facts["path"] for page in obstore.list(self.server.bucket(self.name)) for facts in page)

    def put(self, key: str, content: bytes) -> None:
        obstore.put(self.server.bucket(self.name), key, content)

    def get(self, key: str) -> bytes:
        return bytes(obstore.get(self.server.bucket(self.name), key).bytes())

    def delete(self, *keys: str) -> None:
        obstore.delete(self.server.bucket(self.name), list(keys))

    def put_odd(self, key: str, content: bytes) -> None:
        """Make an object whose key obstore cannot name."""
        import boto3
        from botocore.config import Config

        client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        client.put_object(Bucket=self.name, Key=key, Body=content)

    def upload(self, folder: Path, prefix: str = "images") -> str:
        self.server.upload(folder, self.name, prefix)
        return f"{self}/{prefix}"


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    made = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(made)
    return Bucket(made, server)
