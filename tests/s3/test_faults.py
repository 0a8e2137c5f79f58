from __future__ import annotations

import os
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import CredentialRetrievalError
from obstore.store import S3Store

from mission9.config import RunConfig
from mission9.errors import ConfigError, ImageError, InputError, OutputError, StorageError
from mission9.pipeline.run import run
from mission9.results.verify import verify_output
from mission9.sources.read_object import read_object
from mission9.storage.s3 import client, objects
from mission9.storage.s3.address import Address
from mission9.storage.s3.objects import get, head, put, put_new, read
from tests.s3.conftest import Bucket
from tests.s3.faulty import Faults, faulty_server, refusal
from tests.s3.test_run import SETTINGS, assert_same, local_run

pytestmark = pytest.mark.filterwarnings("ignore:unclosed")  # of connections that were broken on purpose


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_PAUSE", 0.01)
    monkeypatch.setattr(client, "_FIRST_WAIT", timedelta(milliseconds=5))


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def faulty(bucket: Bucket, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with faulty_server(bucket.server.port, faults) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield bucket


def get_it(address: Address) -> object:
    return get(address, 10)


def put_it(address: Address) -> None:
    put(address, b"")


@contextmanager
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(client, "MAX_TRIES", 1)
    client._store_of.cache_clear()
    yield
    client._store_of.cache_clear()


@contextmanager
def refusing() -> Iterator[tuple[str, list[object]]]:
    """The address of a server that hangs up on all, and whom it hung up on."""
    refused: list[object] = []

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            refused.append(self.client_address)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), HangUp) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", refused
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_run_over_a_bad_network_loses_and_doubles_nothing(
    faulty: Bucket, faults: Faults, tree: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.models.extraction.SHARD_IMAGES", {"cpu": 4})
    address = faulty.upload(tree)
    faults.chance.seed(seed)
    faults.slow_down, faults.reset, faults.lost, faults.cut, faults.slow = 0.1, 0.05, 0.05, 0.05, 0.05
    output = f"{faulty}/results"
    report = run(RunConfig(input=address, output=output, no_report=True, **SETTINGS))
    assert (report.listed, report.featured, report.rejected) == (15, 15, 0)
    print(faults.counts["slow_down"], faults.counts["reset"], faults.counts["lost"], faults.counts["cut"])
    assert min(faults.counts[name] for name in ("slow_down", "reset", "cut", "slow")) > 0
    assert not list(verify_output(output))
    assert_same(output, local_run(tree, tmp_path / "wanted"))
    keys = [key for key in faulty.keys if key.startswith("results/")]
    assert len([key for key in keys if "/features/" in key]) == 2  # a part of Training, a part of Test
    assert not [key for key in keys if "lock" in key or "clock" in key or "todo" in key]


@pytest.mark.slow
def test_half_a_body_is_no_image(faulty: Bucket, faults: Faults) -> None:
    faulty.put("a.jpg", bytes(100_000))
    faults.cut, faults.methods = 0.5, ("GET",)
    for _ in range(20):
        assert len(read(Address(faulty.name, "a.jpg"), 1 << 20)) == 100_000
    faults.cut = 1.0
    with pytest.raises(ImageError) as error:
        read_object(Address(faulty.name, "a.jpg"), max_bytes=1 << 20)
    assert error.value.reason == "unreadable"


def test_what_is_gone_or_forbidden_is_asked_for_once(faulty: Bucket, faults: Faults) -> None:
    faulty.put("secret.jpg", b"x")
    faults.forbidden = "secret"
    for key, reason in (("secret.jpg", "permission_denied"), ("gone.jpg", "vanished")):
        with pytest.raises(ImageError) as error:
            read_object(Address(faulty.name, key), max_bytes=1 << 20)
        assert error.value.reason == reason
        assert faults.counts[f"GET /{faulty.name}/{key}"] == 1


def test_an_archived_object_is_to_be_restored(faulty: Bucket, faults: Faults) -> None:
    faulty.put("old.jpg", b"x")
    faults.forbidden, faults.refusal = "old", refusal(403, "InvalidObjectState")
    with pytest.raises(ImageError, match="the object is archived .*: restore it with") as error:
        read_object(Address(faulty.name, "old.jpg"), max_bytes=1 << 20)
    assert error.value.reason == "unreadable"
    assert "s3:GetObject" not in str(error.value)
    faults.refusal = refusal(403, "RequestTimeTooSkewed")
    with pytest.raises(StorageError, match="the server reports a wrong clock"):
        read_object(Address(faulty.name, "old.jpg"), max_bytes=1 << 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "ExpiredToken", r"the credentials of the environment \(ExpiredToken\): renew them, then rerun the same"),
        (403, "InvalidAccessKeyId", "renew them, then rerun the same command to resume"),
        (404, "NoSuchBucket", "does not exist: create it"),
        (301, "PermanentRedirect", "is in another region than eu-west-1: set AWS_REGION to that of the bucket"),
    ],
)
def test_what_no_image_can_be_read_for_ends_the_run(
    faulty: Bucket, faults: Faults, tree: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, told: str
) -> None:
    monkeypatch.setattr("mission9.models.extraction.SHARD_IMAGES", {"cpu": 4})
    settings = {"input": faulty.upload(tree), "output": f"{faulty}/results", "no_report": True, **SETTINGS}
    faults.forbidden, faults.refusal = "/images/Training/b", refusal(status, code)  # as if it were so from here on
    with pytest.raises(StorageError, match=told):
        run(RunConfig(**settings))
    assert 0 < faults.counts["forbidden"] <= 8  # an image's, and of those that were read ahead
    assert not [key for key in faulty.keys if "reject" in key]
    faults.forbidden = ""
    report = run(RunConfig(**settings))
    assert (report.listed, report.rejected) == (15, 0)
    assert report.images_inferred < 15


@pytest.mark.slow
@pytest.mark.parametrize("command", [get_it, head, put_it])
def test_a_bucket_of_another_region_is_told_at_once(faulty: Bucket, faults: Faults, command: Any) -> None:
    faults.forbidden, faults.refusal = "/key", refusal(301, "PermanentRedirect")
    with pytest.raises(ConfigError, match="set AWS_REGION"):
        command(Address(faulty.name, "key"))
    assert faults.counts["forbidden"] == 1


def test_credentials_that_nobody_renews_are_told_at_once(faulty: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ended() -> Any:
        asked.append(1)
        raise CredentialRetrievalError(provider="sso", error_msg="the session has expired")

    store = S3Store(faulty.name, endpoint="http://127.0.0.1:1", region="eu-west-1", credential_provider=ended)
    monkeypatch.setattr(objects, "store_of", lambda _: store)
    with pytest.raises(
        StorageError, match=r"cannot be renewed \(.*the session has expired.*\): renew them, then rerun"
    ):
        read_object(Address(faulty.name, "a.jpg"), max_bytes=10)
    assert len(asked) == 1


def test_too_many_bytes_are_not_fetched(bucket: Bucket) -> None:
    bucket.put("large.jpg", bytes(1000))
    with pytest.raises(ImageError, match="1000 bytes exceed the limit of 999") as error:
        read_object(Address(bucket.name, "large.jpg"), max_bytes=999)
    assert error.value.reason == "too_many_bytes"


def test_a_bucket_that_may_not_be_listed_is_told_at_once(faulty: Bucket, faults: Faults, tmp_path: Path) -> None:
    faults.forbidden = "list-type"
    with pytest.raises(InputError, match=r"lack a permission \(403\): allow s3:ListBucket"):
        run(RunConfig(input=f"{faulty}/images", output=str(tmp_path / "o"), **SETTINGS))
    assert faults.counts["forbidden"] == 1


def test_a_prefix_that_may_not_be_written_is_told_before_the_work(faulty: Bucket, faults: Faults, tree: Path) -> None:
    faults.forbidden = "/results/_state/lock"
    with pytest.raises(OutputError, match="s3:PutObject and s3:DeleteObject for results"):
        run(RunConfig(input=str(tree), output=f"{faulty}/results", **SETTINGS))
    assert faults.counts["forbidden"] == 1
    assert faulty.keys == []


def test_images_that_may_not_be_read_are_told_once_and_not_each(
    faulty: Bucket, faults: Faults, tree: Path, tmp_path: Path
) -> None:
    address = faulty.upload(tree)
    faults.forbidden = "/images/"
    with pytest.raises(InputError, match="403"):
        run(RunConfig(input=address, output=str(tmp_path / "o"), **SETTINGS))
    assert faults.counts["forbidden"] == 1


@pytest.mark.slow
def test_a_server_that_is_gone_is_told_in_a_line(
    faulty: Bucket, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    with impatient(monkeypatch):
        faults.slow_down = 1.0
        with pytest.raises(StorageError, match=r"repeated errors .*\(it answers 503\): fix it"):
            put(Address(faulty.name, "x"), b"x")
        with refusing() as (address, refused):
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            with pytest.raises(StorageError, match=f"repeated errors of the server of {address}"):
                put(Address(faulty.name, "x"), b"x")
        assert 0 < len(refused) < 20


def test_a_large_file_whose_last_answer_is_cut_is_there(faulty: Bucket, faults: Faults, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(6_000_000))  # sent in pieces
    faults.cut, faults.methods = 0.3, ("POST",)
    for number in range(8):
        put(Address(faulty.name, f"large{number}"), file)
        assert faulty.get(f"large{number}") == file.read_bytes()
    assert faults.counts["cut"]


@pytest.mark.slow
def test_few_pieces_of_a_file_are_in_memory_at_a_time(faulty: Bucket, faults: Faults, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(32_000_000))  # seven pieces
    put(Address(faulty.name, "large"), file)
    assert faults.most_open <= 3
    assert faulty.get("large") == file.read_bytes()


def test_an_object_that_was_made_although_the_answer_was_lost_is_there_once(faulty: Bucket, faults: Faults) -> None:
    faults.lost, faults.methods = 0.5, ("PUT",)
    faults.chance.seed(1)
    for number in range(8):
        put_new(Address(faulty.name, f"new/{number}"), b"x")
    faults.lost = 0
    assert [key for key in faulty.keys if key.startswith("new/")] == [f"new/{number}" for number in range(8)]
    assert not put_new(Address(faulty.name, "new/0"), b"y")
