from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mission9.errors import ConfigError, InputError
from mission9.schema import LISTING
from mission9.sources import bucket_listing, find_root
from mission9.sources.list_images import has_more_images, list_images
from mission9.sources.listing import Listing, ListingCounts
from mission9.storage.s3 import listing, raw_keys
from mission9.storage.s3.address import Address
from mission9.storage.s3.environment import describe_credentials
from tests.s3.conftest import PAGE_KEYS, Bucket

# As a bucket's owner may name things; what no key of a client can be is told apart below.
NAMES = (
    *("Training/Pomme d'été/1.jpg", "Training/a=b/100%.jpg", "Training/a=b/p%20q.jpg", "Training/日本/é.PNG"),
    *("Training/a.b/_x.jpg", "Training/a/.y.jpg", "Training/a/b\\c.jpg", "Training/a/\\x41.jpg", "Training/a/#?&+.jpg"),
    *(
        "Test/a/deep/er/1.jpg",
        "Test/a/noextension",
        "Test/a/notes.txt",
        "LICENSE",
        "README.md",
        "loose.jpg",
        "Test/t.jpg",
    ),
    *(".git/objects/1", "Training/a/.ipynb_checkpoints/1.jpg", "__MACOSX/Training/._1.jpg", "Training/a/._1.jpg"),
    *("out/_state/lock", "out/features/1", "out/page.png", "my_state/_state/lock", "myself/1.jpg"),
)


def rows_of(root: str, found: ListingCounts | None = None, **options: object) -> list[dict[str, object]]:
    batches = list(list_images(find_root(root), found or ListingCounts(), Listing(**options)))  # type: ignore[arg-type]
    assert all(batch.schema.equals(LISTING) for batch in batches)
    rows: list[dict[str, object]] = pa.Table.from_batches(batches, LISTING).to_pylist()
    return rows


@pytest.fixture
def names(tmp_path: Path) -> Path:
    root = tmp_path / "names"
    for number, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (number + 1))
    return root


@pytest.mark.parametrize("options", [{}, {"all_files": True, "label_level": 1}])
def test_a_prefix_is_listed_as_a_folder_of_the_same_files(
    bucket: Bucket, names: Path, options: dict[str, object]
) -> None:
    address = bucket.upload(names, "some/names")
    here, there = ListingCounts(), ListingCounts()
    wanted, found = rows_of(str(names), here, **options), rows_of(address, there, **options)
    assert [{**row, "modified": 0} for row in found] == [{**row, "modified": 0} for row in wanted]
    assert all(row["modified"] for row in found)
    assert there == here


def test_many_prefixes_and_pages_come_in_order(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bucket_listing, listing):
        monkeypatch.setattr(module, "PAGE_KEYS", PAGE_KEYS)
    root = tmp_path / "many"
    for number in range(PAGE_KEYS + 10):
        folder = root / "Training" / f"l{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(b"x")
    (root / "Test.jpg").write_bytes(b"xx")
    (root / "Training" / "l0.b").mkdir()
    (root / "Training" / "l0.b" / "1.jpg").write_bytes(b"x")
    paths = [row["path"] for row in rows_of(bucket.upload(root))]
    assert paths == [row["path"] for row in rows_of(str(root))]
    assert has_more_images(find_root(f"{bucket}/images"), PAGE_KEYS)
    assert not has_more_images(find_root(f"{bucket}/images"), PAGE_KEYS + 20)


@pytest.mark.parametrize("most", [3, 50])
def test_a_folder_beside_many_objects_is_listed_with_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    keys = [*(f"images/Training/{n}.jpg" for n in range(5)), *(f"images/{n}.jpg" for n in range(5)), "images/Uu/1.jpg"]
    for key in keys:
        bucket.put(key, b"x")
    monkeypatch.setattr(bucket_listing, "PAGE_KEYS", 2)  # as if these were pages enough
    monkeypatch.setattr(bucket_listing, "_MAX_OF_A_LEVEL", most)
    asked: list[int] = []
    small = listing.list_small_level

    def noted(address: Address, *arguments: Any) -> Any:
        level = small(address, *arguments)
        asked.append(0 if level is None else len(level[0]) + len(level[1]))
        return level

    monkeypatch.setattr(bucket_listing, "list_small_level", noted)
    assert [row["path"] for row in rows_of(f"{bucket}/images", splits_from="folders")] == sorted(
        key.removeprefix("images/") for key in keys
    )
    assert asked == [7 if most == 50 else 0]


def test_no_more_of_a_level_is_asked_for_than_may_be_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"Size": 1, "LastModified": datetime.now(UTC), "ETag": "e"}
    taken = iter([{"Contents": [{"Key": f"p/{number}", **facts}]} for number in range(9)])
    monkeypatch.setattr(raw_keys, "_paginated", lambda *_, **__: taken)
    assert listing.list_small_level(Address("bucket", "p"), 3) is None
    assert len(list(taken)) == 5


def test_a_page_without_keys_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"Size": 1, "LastModified": datetime.now(UTC), "ETag": "e"}
    pages = [{"Contents": [{"Key": "a//1.jpg", **facts}]}, {"IsTruncated": True}, {"Contents": [{"Key": "b", **facts}]}]
    monkeypatch.setattr(raw_keys, "_paginated", lambda *_, **__: iter(pages))
    found = listing.list_below(Address("bucket", "odd//prefix"))
    assert [facts.key for page in found for facts in page] == ["a//1.jpg", "b"]


def test_an_object_that_takes_the_place_of_another_is_another(bucket: Bucket) -> None:
    bucket.put("images/a/1.jpg", b"one")
    first = rows_of(f"{bucket}/images")
    assert rows_of(f"{bucket}/images") == first
    bucket.put("images/a/1.jpg", b"two")  # as long, and within the second
    assert rows_of(f"{bucket}/images") != first


def test_results_below_the_input_are_left_out(bucket: Bucket) -> None:
    for key in ("images/a/1.jpg", "images/out/1.jpg", "images/outer/1.jpg"):
        bucket.put(key, b"x")
    rows = rows_of(f"{bucket}/images", exclude=f"{bucket}/images/out")
    assert [row["path"] for row in rows] == ["a/1.jpg", "outer/1.jpg"]


def test_results_in_another_bucket_leave_nothing_out(bucket: Bucket) -> None:
    for key in ("images/a/1.jpg", "images/b/1.jpg"):
        bucket.put(key, b"x")
    for prefix in ("images", "images/a"):
        rows = rows_of(f"{bucket}/images", exclude=f"s3://another-bucket/{prefix}")
        assert [row["path"] for row in rows] == ["a/1.jpg", "b/1.jpg"]


def test_objects_that_stand_for_folders_are_no_images(bucket: Bucket) -> None:
    for key in ("images/Training", "images/Training/a", "images/empty"):
        bucket.put(key, b"")
    bucket.put("images/Training/a/1.jpg", b"x")
    found = ListingCounts()
    assert [row["path"] for row in rows_of(f"{bucket}/images", found)] == ["Training/a/1.jpg"]
    assert found.skipped == {"(folder)": 3}


def test_what_is_not_there_is_told(bucket: Bucket) -> None:
    with pytest.raises(InputError, match=f"there are no objects below {bucket}/nowhere"):
        rows_of(f"{bucket}/nowhere")
    with pytest.raises(
        InputError, match="s3://no-such-bucket-here/x: the bucket no-such-bucket-here of http.* does not exist"
    ):
        rows_of("s3://no-such-bucket-here/x")
    with pytest.raises(ConfigError, match="names no bucket"):
        rows_of("s3://")
    with pytest.raises(ConfigError, match="contains an empty name"):
        rows_of("s3://bucket/a//b")


def test_credentials_that_are_not_accepted_are_told_without_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    with pytest.raises(InputError, match="rejects the credentials of the environment") as error:
        rows_of(f"{bucket}/images")
    assert "planted" not in str(error.value)


def test_a_profile_is_as_good_as_the_environment(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("images/a/1.jpg", b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "config").write_text("[profile fruit]\nregion = eu-west-1\n")
    (tmp_path / "credentials").write_text("[fruit]\naws_access_key_id = test:tester\naws_secret_access_key = testing\n")
    monkeypatch.setenv("AWS_PROFILE", "fruit")
    assert describe_credentials() == "of the profile fruit"
    assert [row["path"] for row in rows_of(f"{bucket}/images")] == ["a/1.jpg"]
    monkeypatch.setenv("AWS_PROFILE", "vegetable")
    with pytest.raises(ConfigError, match="the profile vegetable is not in"):
        rows_of(f"{bucket}/images")


def test_only_a_server_on_this_machine_may_do_without_encryption(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:8080")
    with pytest.raises(ConfigError, match="is not encrypted"):
        rows_of(f"{bucket}/images")
