"""A machine without credentials: the address that would give those of its role says nothing of any bucket."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mission9.config import RunConfig
from mission9.doctor.buckets import examine_s3
from mission9.doctor.finding import Finding
from mission9.errors import Mission9Error, StorageError
from mission9.privacy.bucket_checks import check_bucket
from mission9.storage.s3 import client
from mission9.storage.s3.address import Address
from mission9.storage.s3.listing import list_below
from mission9.storage.s3.objects import get, get_or_none, head, put, put_new

OBJECT = Address("bucket", "key")
ASKED: list[Callable[[], object]] = [
    lambda: get(OBJECT, 10),
    lambda: get_or_none(OBJECT, 10),
    lambda: head(OBJECT),
    lambda: put(OBJECT, b""),
    lambda: put_new(OBJECT, b""),
    lambda: list(list_below(Address("bucket"))),
    lambda: list(check_bucket("bucket")),
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(client, "MAX_TRIES", 0)


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The address of a server that answers everything with a status and nothing else."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("status", [200, 403, 404, 500])
def test_whatever_the_metadata_address_answers_there_are_no_credentials(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(input="s3://bucket/in", output="s3://bucket/out", policy="eu", runner="local", weights="demo")
    with answering(status) as url:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", url)  # as obstore calls it
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)  # as boto3 does
        for ask in ASKED:
            with pytest.raises(StorageError) as error:
                ask()
            told = str(error.value).removeprefix(f"{OBJECT}: ").removeprefix("s3://bucket: ")
            assert told.startswith("no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ")
            assert "s3:" not in told  # no advice on permissions
            assert "for a public bucket, set AWS_SKIP_SIGNATURE to true" in told
        problems = [finding for finding in examine_s3(config) if finding.status == "problem"]
    assert [finding.what for finding in problems] == ["s3 bucket", "s3 policy", "s3 output"]
    assert {remedy_of(finding) for finding in problems} == {("no credentials found", "set AWS_ACCESS_KEY_ID")}


def remedy_of(finding: Finding) -> tuple[str, str]:
    return finding.found.rpartition(": ")[2], finding.remedy.partition(" and ")[0]


@pytest.mark.parametrize("status", [403, 404])
def test_credentials_of_a_task_that_do_not_come_are_told_as_such(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("token")
    with answering(status) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        why = f"the credentials of this task's role cannot be renewed .*{status}"
        for ask in ASKED[:3]:
            with pytest.raises(StorageError, match=why):
                ask()


def test_an_object_called_as_the_metadata_is_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with answering(404) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert get_or_none(Address("latest", "api/token"), 10) is None
    with answering(403) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(Mission9Error, match="the credentials lack a permission"):
            get(Address("latest", "meta-data/iam/x"), 10)
