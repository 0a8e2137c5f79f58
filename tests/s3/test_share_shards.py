"""Shards in a bucket, as workers commit them and the driver brings them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mission9.errors import StorageError
from mission9.s3 import objects, share_shards
from mission9.s3.address import Address
from mission9.s3.share_shards import SharedShards, bring
from mission9.shards import read_features, read_marker, read_rejects
from tests.s3.conftest import Bucket
from tests.test_shards import features, rejects, shard


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

    monkeypatch.setattr(share_shards, "put", failing)
    with pytest.raises(StorageError):
        shared.commit(shard(), features(3), rejects(2), mirror)
    assert "shards/key0.rejects.parquet" in bucket.keys
    monkeypatch.setattr(share_shards, "put", put)
    shared.commit(shard(), features(5), rejects(0), mirror / "elsewhere")
    assert bucket.keys == ["shards/key0.features.parquet", "shards/key0.json"]
    bring(shared.folder, mirror)
    assert read_marker(mirror, "key0") is not None
    assert (len(read_features(mirror, "key0")), len(read_rejects(mirror, "key0"))) == (5, 0)


def test_what_lies_deeper_than_shards_is_none_of_them(bucket: Bucket, mirror: Path, tmp_path: Path) -> None:
    for name in (f"{tmp_path}/owned", "../owned", "deep/owned", "images.parquet/owned"):
        bucket.put_odd(f"shards/{name}.json", b"{}")
        bucket.put_odd(f"shards/{name}.features.parquet", b"theirs")
    bucket.put("shards/plain.json", b"{}")
    bring(Address(bucket.name, "shards"), mirror)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["plain.json"]
