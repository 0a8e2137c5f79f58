"""Shards in a bucket, as workers commit them and the driver brings them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mission9.errors import StorageError
from mission9.output.bucket import shards
from mission9.output.bucket.shards import SharedShards, download, incoming
from mission9.output.shards import read_features, read_marker, read_rejects
from mission9.storage.s3 import objects, range_reader
from mission9.storage.s3.address import Address
from mission9.storage.s3.listing import list_below
from mission9.storage.s3.objects import ObjectInfo
from tests.output.test_shards import features, rejects, shard
from tests.output.test_tables import write_groups
from tests.s3.conftest import Bucket
from tests.support.held_up import wait_until


@pytest.fixture
def shared(bucket: Bucket) -> SharedShards:
    return SharedShards(Address(bucket.name, "shards"), Address(bucket.name, "todo.parquet"))


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    return folder


def test_nothing_of_a_try_that_failed_is_left_beside_the_marker(
    bucket: Bucket, shared: SharedShards, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = objects.put

    def failing(address: Address, content: bytes | Path) -> None:
        if address.name.endswith(".json"):
            raise StorageError("the worker is gone")
        put(address, content)

    monkeypatch.setattr(shards, "put", failing)
    with pytest.raises(StorageError):
        shared.commit(shard(), features(3), rejects(2), mirror)
    assert "shards/key0.rejects.parquet" in bucket.keys
    monkeypatch.setattr(shards, "put", put)
    shared.commit(shard(), features(5), rejects(0), mirror / "elsewhere")
    assert bucket.keys == ["shards/key0.features.parquet", "shards/key0.json"]
    assert download(shared.folder, mirror) == 2
    assert read_marker(mirror, "key0") is not None
    assert (len(read_features(mirror, "key0")), len(read_rejects(mirror, "key0"))) == (5, 0)


def test_what_lies_deeper_than_shards_is_none_of_them(bucket: Bucket, mirror: Path, tmp_path: Path) -> None:
    for name in (f"{tmp_path}/owned", "../owned", "deep/owned", "images.parquet/owned"):
        bucket.put_odd(f"shards/{name}.json", b"{}")
        bucket.put_odd(f"shards/{name}.features.parquet", b"theirs")
    for name in ("plain.json", ".json", ".."):  # the second is the marker of what has no name
        bucket.put_odd(f"shards/{name}", b"{}")
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    download(Address(bucket.name, "shards"), mirror)
    now = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert sorted(file.name for file in now - before) == [".json", "plain.json"]
    assert before <= now


def test_what_was_brought_is_not_fetched_again_where_etags_tell_nothing_of_it(
    shared: SharedShards, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_LOOK_EVERY", 0.05)
    looks: list[Address] = []

    def look(address: Address) -> Iterator[list[ObjectInfo]]:
        looks.append(address)
        return as_encrypted(address)

    monkeypatch.setattr(shards, "list_below", look)
    fetched: list[str] = []
    fetch = objects.fetch

    def noted(address: Address, file: Path) -> None:
        fetched.append(address.name)
        fetch(address, file)

    def is_looked_at(key: str, before: int) -> bool:
        """Return True if a shard is here, and stayed for some more polls of the bucket."""
        return read_marker(mirror, key) is not None and len(looks) > before + 5

    monkeypatch.setattr(shards, "fetch", noted)
    keys = ["key0", "key1"]
    with incoming(shared.folder, mirror, keys):
        for number, key in enumerate(keys):
            shared.commit(shard(number), features(3), rejects(2), mirror / "elsewhere")
            wait_until(partial(is_looked_at, key, len(looks)))
    assert sorted(fetched) == [
        f"{key}.{what}" for key in keys for what in ("features.parquet", "json", "rejects.parquet")
    ]
    assert all(read_marker(mirror, key) is not None for key in keys)


def test_polls_of_many_objects_are_rarer() -> None:
    class Ended(threading.Event):
        """Notes the waits between polls, and ends them."""

        def __init__(self) -> None:
            super().__init__()
            self.waits: list[float] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.waits.append(timeout or 0.0)
            return len(self.waits) == 4

    ended, counts = Ended(), iter((0, 9_999, 780_000))
    shards._look_until(lambda: next(counts), ended)
    assert ended.waits == [1.0, 1.0, 10.0, 60.0]


def test_what_came_damaged_is_brought_again(
    shared: SharedShards, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.commit(shard(), features(3), rejects(2), mirror / "elsewhere")
    fetch, torn = objects.fetch, ["key0.features.parquet"]

    def torn_once(address: Address, file: Path) -> None:
        fetch(address, file)
        if address.name in torn:
            torn.remove(address.name)
            file.write_bytes(file.read_bytes()[:-1])

    monkeypatch.setattr(shards, "fetch", torn_once)
    brought: set[ObjectInfo] = set()
    download(shared.folder, mirror, only=["key0"], brought=brought)
    assert read_marker(mirror, "key0") is None
    download(shared.folder, mirror, only=["key0"], brought=brought)
    assert len(read_features(mirror, "key0")) == 3


def test_the_footer_of_a_plan_is_fetched_once_for_many_shards(
    bucket: Bucket, shared: SharedShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_groups(tmp_path / "todo.parquet", 2000)
    bucket.put("todo.parquet", (tmp_path / "todo.parquet").read_bytes())
    fetched: list[int] = []
    get_range = range_reader.get_range

    def counted(address: Address, start: int, length: int) -> bytes:
        fetched.append(length)
        return get_range(address, start, length)

    monkeypatch.setattr(range_reader, "get_range", counted)
    assert [shared.rows(number)["number"].to_pylist() for number in (0, 7, 1999)] == [[0], [7], [1999]]
    footer = pq.read_metadata(tmp_path / "todo.parquet").serialized_size
    assert footer > 100_000
    assert sum(fetched) < 2 * footer


def as_encrypted(address: Address) -> Iterator[list[ObjectInfo]]:
    """The listing of a bucket encrypted with its own key: its ETags are not MD5."""
    for page in list_below(address):
        yield [replace(found, etag=f"encrypted-{found.etag}") for found in page]
