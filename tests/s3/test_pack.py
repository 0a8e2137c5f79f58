"""Packs in a bucket."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.errors import ImageError, InputError, StorageError
from mission9.pack import plan_pack, write_part
from mission9.pack.make_pack import make_pack
from mission9.pipeline.run import run
from mission9.sources import find_root, open_source, resolve_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.sources.pack import layout
from mission9.sources.pack.source import PackSource
from mission9.storage.file_store import file_store
from mission9.storage.s3 import lease, range_reader
from mission9.storage.s3.address import Address
from tests.pack.test_pack import in_this_process
from tests.s3.conftest import Bucket
from tests.s3.test_run import ODD_NAMES, SETTINGS, assert_same, local_run
from tests.support.held_up import wait_until


def rows_of(place: str) -> list[dict[str, Any]]:
    return [row for batch in list_images(find_root(place), ListingCounts()) for row in batch.to_pylist()]


def assert_holds(pack: str, images: str) -> None:
    """A pack gives the rows and the bytes that the objects give."""
    wanted = rows_of(images)
    assert rows_of(pack) == wanted
    source, of_objects = open_source(resolve_root(pack)), open_source(resolve_root(images))
    for row in wanted:
        assert source.read(row["path"], max_bytes=2**28) == of_objects.read(row["path"], max_bytes=2**28)


@pytest.mark.slow
def test_a_pack_in_a_bucket_gives_what_its_images_give(
    bucket: Bucket,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_pack, "PART_BYTES", 20_000)
    for name in (*ODD_NAMES, "Training/a/broken.jpg", "LICENSE"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((tree / "Training/b/4.jpg").read_bytes()[: 300 if "broken" in name else None])
    address, pack = bucket.upload(tree), f"{bucket}/packs/fruits"
    wanted = local_run(address, tmp_path / "wanted")
    report = make_pack(address, pack)
    assert (report.packed, report.rejected) == (report.listed, 0)
    assert report.parts > 2
    assert_holds(pack, address)
    found = f"{bucket}/results"
    first = run(RunConfig(input=pack, output=found, max_reject_rate=0.5, **SETTINGS))
    assert first.images_inferred == first.listed == report.listed
    assert_same(found, wanted)
    bucket.put("images/Training/a/new.jpg", (tree / "Training/a/1.jpg").read_bytes())
    bucket.delete("images/Training/b/2.jpg")
    again = make_pack(address, pack)
    assert (again.listed, again.gone) == (report.listed, 1)
    assert again.read < again.listed
    assert_holds(pack, address)
    later = run(RunConfig(input=pack, output=found, max_reject_rate=0.5, **SETTINGS))
    assert later.images_inferred == 1
    assert_same(found, local_run(address, tmp_path / "wanted"))
    assert not [key for key in bucket.keys if key.endswith("lock.json")]


def test_a_folder_packed_into_a_bucket(bucket: Bucket, tree: Path) -> None:
    assert main(["pack", "--input", str(tree), "--output", f"{bucket}/pack"]) == 0
    rows = [row["path"] for row in rows_of(f"{bucket}/pack")]
    source = open_source(resolve_root(f"{bucket}/pack"))
    for path in rows:
        assert source.read(path, max_bytes=2**28) == (tree / path).read_bytes()
    assert len(rows) == 15


def test_images_are_asked_for_together(bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pack(str(tree), f"{bucket}/pack")
    source, ranges = open_source(resolve_root(f"{bucket}/pack")), range_reader._range
    asked: list[str] = []

    def noted(address: Address, start: int, length: int) -> bytes:
        asked.append(address.key)
        return ranges(address, start, length)

    monkeypatch.setattr(range_reader, "_range", noted)
    rows = [row["path"] for row in rows_of(f"{bucket}/pack")]
    asked.clear()
    source.read(rows[7], max_bytes=2**28)
    of_one = len([name for name in asked if "index" not in name])
    threads = [threading.Thread(target=source.read, args=[path], kwargs={"max_bytes": 2**28}) for path in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert of_one == 1
    assert len([name for name in asked if "index" not in name]) == 2


def test_a_killed_pack_goes_on_from_what_is_in_the_bucket(
    bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pack = bucket.upload(tree), f"{bucket}/pack"
    monkeypatch.setattr(plan_pack, "PART_BYTES", 12_000)
    monkeypatch.setattr("mission9.pack.make_pack._write_parts", in_this_process)
    call = write_part.WriteParts.__call__
    made: list[int] = []

    def until_killed(self: write_part.WriteParts, number: int) -> bytes:
        if made:
            raise KeyboardInterrupt
        made.append(self.parts[number].images)
        return call(self, number)

    monkeypatch.setattr(write_part.WriteParts, "__call__", until_killed)
    with pytest.raises(KeyboardInterrupt):
        make_pack(address, pack)
    assert f"pack/{layout.MANIFEST}" not in bucket.keys
    with pytest.raises(InputError, match="is not finished"):
        run(RunConfig(input=pack, output=f"{bucket}/out", **SETTINGS))
    monkeypatch.setattr(write_part.WriteParts, "__call__", call)
    assert make_pack(address, pack).read == 15 - made[0]
    assert_holds(pack, address)


def test_a_pack_in_a_bucket_may_be_brought_up_to_date_while_it_is_read(
    bucket: Bucket, tree: Path, pictures: list[bytes]
) -> None:
    pack = f"{bucket}/pack"
    make_pack(str(tree), pack)
    source, other = PackSource(resolve_root(pack)), PackSource(resolve_root(pack))
    assert source.read("Training/a/1.jpg", max_bytes=2**28) == pictures[1]  # by which it knows the old index
    (tree / "Training/a/2.jpg").unlink()
    make_pack(str(tree), pack)
    for reader in (source, other):
        assert reader.read("Training/a/3.jpg", max_bytes=2**28) == pictures[3]
        assert reader.read("Training/a/1.jpg", max_bytes=2**28) == pictures[1]
        with pytest.raises(ImageError) as gone:
            reader.read("Training/a/2.jpg", max_bytes=2**28)
        assert gone.value.reason == "vanished"
    bucket.delete(*(key for key in bucket.keys if key.startswith(f"pack/{layout.IMAGES}/")))
    with pytest.raises(ImageError) as gone:
        PackSource(resolve_root(pack)).read("Training/a/3.jpg", max_bytes=2**28)
    assert gone.value.reason == "vanished"


@pytest.mark.slow
def test_damage_in_a_bucket_is_told(bucket: Bucket, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pack(str(tree), f"{bucket}/pack")
    part = next(key for key in bucket.keys if layout.IMAGES in key)
    content = bytearray(bucket.get(part))
    picture = (tree / "Training/b/3.jpg").read_bytes()
    content[content.rindex(picture) + 50] ^= 1
    bucket.put(part, bytes(content))
    source = open_source(resolve_root(f"{bucket}/pack"))
    with pytest.raises(ImageError, match="pack again with --overwrite"):
        source.read("Training/b/3.jpg", max_bytes=2**28)
    assert source.read("Training/a/3.jpg", max_bytes=2**28) == picture
    bucket.put(part, bytes(content[:2000]))
    open_source.cache_clear()
    source = open_source(resolve_root(f"{bucket}/pack"))
    with pytest.raises(ImageError) as shortened:
        source.read("Training/b/5.jpg", max_bytes=2**28)
    assert shortened.value.reason == "unreadable"
    manifest = f"pack/{layout.MANIFEST}"
    bucket.put(manifest, bucket.get(manifest)[:-20])
    assert main(["run", "--input", f"{bucket}/pack", "--output", f"{bucket}/out", "--weights", "demo"]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_of_two_at_once_one_is_refused_and_no_one_s_objects_are_packed_over(
    bucket: Bucket, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket.put("others/letter.txt", b"dear")
    assert main(["pack", "--input", str(tree), "--output", f"{bucket}/others"]) == 2
    assert "letter.txt, not a pack" in capsys.readouterr().err
    run(RunConfig(input=str(tree), output=f"{bucket}/results", no_report=True, **SETTINGS))
    there = [key for key in bucket.keys if key.startswith("results/")]
    for taken in ("results/run.json", ""):
        assert main(["pack", "--input", str(tree), "--output", f"{bucket}/results"]) == 2
        assert "holds the results of a run" in capsys.readouterr().err
        if taken:
            bucket.delete(taken)
            there.remove(taken)
    assert [key for key in bucket.keys if key.startswith("results/")] == there
    assert main(["pack", "--input", str(tree), "--output", str(bucket)]) == 2
    assert "cannot be the top" in capsys.readouterr().err
    with file_store(f"{bucket}/pack").lock(layout.LOCK):
        assert main(["pack", "--input", str(tree), "--output", f"{bucket}/pack"]) == 2
    assert f'"pid": {os.getpid()}' in capsys.readouterr().err


def test_a_pack_whose_lock_another_took_shows_nothing_and_deletes_nothing(
    bucket: Bucket, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pack(str(tree), f"{bucket}/pack")
    (tree / "Training/a/new.jpg").write_bytes((tree / "Training/a/1.jpg").read_bytes())
    standing = {key: bucket.get(key) for key in bucket.keys if f"/{layout.DONE}/" not in key}
    monkeypatch.setattr(lease, "_RENEW_EVERY", 0.05)
    renew, lost = lease.Lease.renew, threading.Event()

    def noted(self: lease.Lease) -> None:
        renew(self)
        if self.lost:
            lost.set()

    def until_lost(*arguments: Any) -> None:
        in_this_process(*arguments)
        monkeypatch.setattr(lease.Lease, "renew", noted)

        def is_lost() -> bool:  # a renewal that is under way may come after what the other writes
            bucket.put(f"pack/{layout.LOCK}", json.dumps({"token": "other", "host": "elsewhere"}).encode())
            return lost.wait(0.1)

        wait_until(is_lost)

    monkeypatch.setattr("mission9.pack.make_pack._write_parts", until_lost)
    with pytest.raises(StorageError, match="elsewhere.* holds it.*: rerun the same command"):
        make_pack(str(tree), f"{bucket}/pack")
    now = {key: bucket.get(key) for key in bucket.keys}
    changed = {key for key, content in standing.items() if now.get(key) != content}
    assert changed <= {f"pack/{layout.PLAN_FILE}"}
