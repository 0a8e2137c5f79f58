"""Packs: the same rows and bytes as the files, brought up to date, damaged, and killed in the making."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.errors import ImageError, InputError
from mission9.output.run_report import Report
from mission9.pack import plan_pack, write_part
from mission9.pack.make_pack import make_pack
from mission9.pack.publish import PackReport
from mission9.pipeline.run import run
from mission9.sources import find_root, open_source, resolve_root
from mission9.sources.base import Root
from mission9.sources.list_images import has_more_images, list_images
from mission9.sources.listing import ListingCounts
from mission9.sources.pack import layout
from mission9.sources.pack.source import PackSource
from mission9.storage.file_store import file_store
from tests.conftest import SHARED
from tests.scenarios.test_hostile_names import Hostile, put_links, put_names, put_what_is_no_file
from tests.support.hostile import tables

MOST = 256 * 1024 * 1024


def packed(images: Path, pack: Path, **options: Any) -> PackReport:
    return make_pack(str(images), str(pack), **options)


def rows_of(root: Path | str) -> tuple[list[dict[str, Any]], ListingCounts]:
    found = ListingCounts()
    rows = [row for batch in list_images(find_root(str(root)), found) for row in batch.to_pylist()]
    return rows, ListingCounts(found.listed, found.skipped)


def content_of(root: Path | str, path: str) -> bytes | tuple[str, str]:
    """An image's bytes, or the reason and the message of why it has none."""
    try:
        return open_source(resolve_root(str(root))).read(path, max_bytes=MOST)
    except ImageError as error:
        return error.reason, str(error)


def assert_holds(pack: Path | str, images: Path | str) -> None:
    """A pack gives the rows, the bytes and the reasons that the files give; its parts hold each image once."""
    wanted, found = rows_of(images)
    there, told = rows_of(pack)
    assert there == wanted
    assert (told.listed, told.skipped) == (found.listed, found.skipped)
    contents = {row["path"]: content_of(images, row["path"]) for row in wanted}
    assert {path: content_of(pack, path) for path in contents} == contents
    if isinstance(pack, Path):
        table = pq.read_table(pack / layout.IMAGES)
        assert len(table) == len(set(table["path"].to_pylist()))
        good = {path: content for path, content in contents.items() if isinstance(content, bytes)}
        assert dict(zip(table["path"].to_pylist(), table["bytes"].to_pylist(), strict=True)) == good


def features_run(images: Path, output: Path, **settings: Any) -> Report:
    given = {"weights": "demo", "components": 3, "max_reject_rate": 0.9, "no_report": True, **settings}
    return run(RunConfig(input=str(images), output=str(output), **given))


@pytest.fixture
def odd_tree(tree: Path, pictures: list[bytes]) -> Path:
    """The tree with damaged and empty images, a link to nothing, and files that are no images."""
    (tree / "Training/a/broken.jpg").write_bytes(pictures[0][:300])
    (tree / "Training/a/empty.jpg").write_bytes(b"")
    (tree / "Training/b/gone.jpg").symlink_to("nothing.jpg")
    (tree / "Training/b/notes.txt").write_text("none")
    (tree / "LICENSE").write_text("free")
    (tree / "Training/Pomme d'été 1").mkdir()
    (tree / "Training/Pomme d'été 1/a=b%20.jpg").write_bytes(pictures[9])
    return tree


def test_a_run_on_a_pack_gives_the_tables_of_a_run_on_the_files(odd_tree: Path, tmp_path: Path) -> None:
    report = packed(odd_tree, tmp_path / "pack")
    assert (report.listed, report.packed, report.rejected, report.read) == (19, 18, 1, 19)
    assert dict(report.reasons) == {"vanished": 1}
    of_files, of_pack = (
        features_run(images, tmp_path / f"of {images.name}") for images in (odd_tree, tmp_path / "pack")
    )
    assert tables(tmp_path / "of pack") == tables(tmp_path / "of images")
    assert (of_pack.splits, of_pack.skipped, of_pack.found) == (of_files.splits, of_files.skipped, of_files.found)
    assert of_pack.images_inferred == of_files.images_inferred == 19
    # The one image that could not be read is tried again; all else is known, by either name.
    for images in (tmp_path / "pack", odd_tree):
        assert features_run(images, tmp_path / "of images", verify_content=images == odd_tree).images_inferred <= 3


def test_names_that_break_programs_come_back(tmp_path: Path) -> None:
    tree = Hostile(tmp_path / "entrée 🍑")
    put_names(tree)
    put_what_is_no_file(tree)
    put_links(tree, tmp_path / "outside")
    (tree.root / "LICENSE").write_text("beside the splits")
    report = packed(tree.root, tmp_path / "päck")
    assert report.listed == len(tree.rows)
    assert_holds(tmp_path / "päck", tree.root)
    rejects = pq.read_table(tmp_path / "päck" / layout.REJECTS)
    ends = {path: end for path, (_, _, end) in tree.rows.items() if end in ("unreadable", "vanished")}
    assert dict(zip(rejects["path"].to_pylist(), rejects["reason"].to_pylist(), strict=True)) == ends


@pytest.mark.slow
@pytest.mark.real
def test_real_images_packed_in_parts_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_pack, "PART_BYTES", 3_000_000)
    report = packed(SHARED / "fruits-360", tmp_path / "pack", workers=2)
    assert (report.packed, report.rejected) == (4000, 0)
    assert report.parts == 8
    assert_holds(tmp_path / "pack", SHARED / "fruits-360")
    assert has_more_images(find_root(str(tmp_path / "pack")), 3999)
    assert not has_more_images(find_root(str(tmp_path / "pack")), 4000)
    # As tables they are those of any reader.
    schema = pq.read_schema(next((tmp_path / "pack" / layout.IMAGES).iterdir()))
    assert schema.names == ["path", "split", "label", "bytes", "sha256", "size", "modified"]


def test_an_image_larger_than_a_page_and_many_small_ones(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    for number in range(2500):
        (folder / f"{number:04}.png").write_bytes(b"%d" % number * (number % 7))
    (folder / "1000x.png").write_bytes(os.urandom(3 * write_part.PAGE_BYTES))
    packed(tmp_path / "images", tmp_path / "pack")
    assert_holds(tmp_path / "pack", tmp_path / "images")
    with pytest.raises(ImageError, match="bytes exceed the limit of 100"):
        open_source(resolve_root(str(tmp_path / "pack"))).read("a/1000x.png", max_bytes=100)


def test_a_pack_is_brought_up_to_date(
    odd_tree: Path, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_pack, "PART_BYTES", 4 * len(pictures[0]))
    monkeypatch.setattr("mission9.pack.make_pack._write_parts", in_this_process)
    pack, output = tmp_path / "pack", tmp_path / "output"
    first = packed(odd_tree, pack)
    assert first.parts > 3
    features_run(pack, output)
    parts = {file.name: file.stat().st_mtime_ns for file in (pack / layout.IMAGES).iterdir()}
    again = packed(odd_tree, pack)
    assert (again.listed, again.packed) == (first.listed, first.packed)
    assert again.read == 1  # what could not be read
    assert packed(odd_tree, pack).read == 1
    (odd_tree / "Training/a/new.jpg").write_bytes(pictures[8])
    (odd_tree / "Training/a/1.jpg").write_bytes(pictures[7])
    (odd_tree / "Test/b/0.jpg").unlink()
    (odd_tree / "Training/b/nothing.jpg").write_bytes(pictures[6])  # to which a link has led to nothing
    report = packed(odd_tree, pack)
    assert (report.listed, report.packed, report.rejected, report.gone) == (20, 20, 0, 2)
    assert report.read < report.listed
    assert_holds(pack, odd_tree)
    kept = {file.name: file.stat().st_mtime_ns for file in (pack / layout.IMAGES).iterdir()}.items() & parts.items()
    assert kept
    assert features_run(pack, output).images_inferred == 4  # new.jpg, 1.jpg, gone.jpg and nothing.jpg
    features_run(odd_tree, tmp_path / "wanted")
    assert tables(output) == tables(tmp_path / "wanted")


def test_what_has_changed_is_told(
    tree: Path, tmp_path: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pack", "--input", str(tree), "--output", str(tmp_path / "pack")]
    assert main(command) == 0
    assert "that the pack held" not in capsys.readouterr().out
    (tree / "Training/a/1.jpg").write_bytes(pictures[7])
    (tree / "Test/b/0.jpg").unlink()
    assert main(command) == 0
    assert "2 that the pack held have changed or are gone\n" in capsys.readouterr().out


def test_nothing_is_read_again_for_what_is_as_it_was(tree: Path, tmp_path: Path) -> None:
    packed(tree, tmp_path / "pack")
    assert packed(tree, tmp_path / "pack").read == 0
    assert packed(tree, tmp_path / "pack", overwrite=True).read == 15


@pytest.mark.slow
def test_a_pack_may_be_brought_up_to_date_while_it_is_read(
    tree: Path, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_pack, "PART_BYTES", 6 * len(pictures[0]))
    pack = tmp_path / "pack"
    packed(tree, pack)
    before = open_source(resolve_root(str(pack)))
    assert before.read("Training/a/1.jpg", max_bytes=MOST) == pictures[1]  # by which it knows the old index
    other = PackSource(resolve_root(str(pack)))
    read, lock, done = PackSource.read, threading.Lock(), threading.Event()

    def while_brought_up_to_date(self: PackSource, path: str, *, max_bytes: int) -> bytes:
        with lock:
            if not done.is_set():
                (tree / "Training/a/2.jpg").unlink()
                (tree / "Training/a/3.jpg").write_bytes(pictures[8])
                packed(tree, pack)
                packed(tree, pack, overwrite=True)
                done.set()
        return read(self, path, max_bytes=max_bytes)

    monkeypatch.setattr(PackSource, "read", while_brought_up_to_date)
    open_source.cache_clear()
    report = features_run(pack, tmp_path / "output")
    assert (report.listed, report.rejected) == (15, 1)
    (reject,) = pq.read_table(tmp_path / "output/rejects").to_pylist()
    assert (reject["path"], reject["reason"]) == ("Training/a/2.jpg", "vanished")
    for source in (before, other):
        for row in rows_of(tree)[0]:
            assert source.read(row["path"], max_bytes=MOST) == (tree / row["path"]).read_bytes()
    assert features_run(pack, tmp_path / "output").rejected == 0


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(content)


def test_a_flipped_byte_costs_the_one_image_that_it_is_in(tree: Path, tmp_path: Path, pictures: list[bytes]) -> None:
    packed(tree, tmp_path / "pack")
    part = next((tmp_path / "pack" / layout.IMAGES).iterdir())
    # The same picture is Training/a/3.jpg and Training/b/3.jpg: the second is damaged.
    flip(part, part.read_bytes().rindex(pictures[3]) + 100)
    report = features_run(tmp_path / "pack", tmp_path / "output")
    assert (report.listed, report.rejected) == (15, 1)
    (reject,) = pq.read_table(tmp_path / "output/rejects").to_pylist()
    assert (reject["path"], reject["reason"]) == ("Training/b/3.jpg", "unreadable")
    assert "pack again with --overwrite" in reject["message"]
    packed(tree, tmp_path / "pack", overwrite=True)
    assert features_run(tmp_path / "pack", tmp_path / "output").images_inferred == 1
    assert_holds(tmp_path / "pack", tree)


@pytest.mark.parametrize("damage", ["shortened", "deleted"])
def test_a_part_that_is_damaged_is_told_and_made_anew(damage: str, tree: Path, tmp_path: Path) -> None:
    packed(tree, tmp_path / "pack")
    part = next((tmp_path / "pack" / layout.IMAGES).iterdir())
    if damage == "deleted":
        part.unlink()
    else:
        os.truncate(part, part.stat().st_size // 3)
    reasons = {content_of(tmp_path / "pack", row["path"])[0] for row in rows_of(tree)[0]}
    assert "vanished" in reasons if damage == "deleted" else "unreadable" in reasons
    assert packed(tree, tmp_path / "pack").read == 15
    assert_holds(tmp_path / "pack", tree)


@pytest.mark.parametrize("which", ["index", "manifest", "not json"])
def test_a_damaged_pack_is_refused_in_a_line(
    which: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(tree, tmp_path / "pack")
    manifest = tmp_path / "pack" / layout.MANIFEST
    if which == "index":
        file = next((tmp_path / "pack" / layout.INDEX).iterdir())
        paths = pq.read_metadata(file).row_group(0).column(0)
        flip(file, paths.data_page_offset + paths.total_compressed_size - 9)
    elif which == "manifest":
        manifest.write_bytes(manifest.read_bytes().replace(b'"images": 15', b'"images": 16'))
    else:
        manifest.write_bytes(b"{")
    command = ["run", "--input", str(tmp_path / "pack"), "--output", str(tmp_path / "output"), "--weights", "demo"]
    assert main(command) == 2
    words = capsys.readouterr().err
    assert "damaged" in words
    assert "pack the images again" in words
    assert not (tmp_path / "output").exists()
    packed(tree, tmp_path / "pack")
    assert_holds(tmp_path / "pack", tree)


@pytest.mark.parametrize(
    ("column", "value"), [("part", "../../secret"), ("at", -5), ("length", 2**40), ("page_bytes", None)]
)
def test_an_index_that_means_no_good_leads_nowhere(column: str, value: object, tree: Path, tmp_path: Path) -> None:
    packed(tree, tmp_path / "pack")
    (tmp_path / "secret.parquet").write_bytes(b"secret" * 10_000)
    index = next((tmp_path / "pack" / layout.INDEX).iterdir())
    table = pq.read_table(index)
    at = table.schema.get_field_index(column)
    forged = table.set_column(at, table.schema.field(at), pa.array([value] * len(table), table.schema.field(at).type))
    first_paths = pq.read_metadata(index).metadata[layout.FIRST_PATHS]
    pq.write_table(forged.replace_schema_metadata({layout.FIRST_PATHS: first_paths}), index)
    for path in table["path"].to_pylist():
        content = content_of(tmp_path / "pack", path)
        assert content[0] in ("unreadable", "too_many_bytes"), content
    pq.write_table(forged, index)
    open_source.cache_clear()
    with pytest.raises(InputError, match="damaged"):
        content_of(tmp_path / "pack", "Training/a/0.jpg")


PACK_SLOWLY = """
import sys, time
from mission9.pack import make_pack, plan_pack
from mission9.pack.write_part import WriteParts
plan_pack.PART_BYTES = 6_000
call = WriteParts.__call__
def slowly(self, number):
    time.sleep(0.3)
    return call(self, number)
WriteParts.__call__ = slowly
make_pack._write_parts = lambda root, store, plan, workers: [
    WriteParts(root=root, todo=plan.todo, parts=tuple(plan.parts), store=store, max_bytes=2**28)(part.number)
    for part in plan.parts]
make_pack.make_pack(*sys.argv[1:])
"""


def test_a_killed_pack_shows_nothing_half_done_and_goes_on(tree: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    process = subprocess.Popen([sys.executable, "-c", PACK_SLOWLY, str(tree), str(pack)])
    deadline = time.monotonic() + 60
    while len(list((pack / layout.DONE).glob("*.parquet"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (pack / layout.MANIFEST).exists()
    done = len(list((pack / layout.DONE).glob("*.parquet")))
    assert done >= 2
    with pytest.raises(InputError, match="not finished"):
        features_run(pack, tmp_path / "output")
    report = packed(tree, pack)
    assert report.packed == 15
    assert_holds(pack, tree)
    # An older pack stands while the next is made, whenever that is killed.
    before = (pack / layout.MANIFEST).read_bytes()
    (tree / "Training/a/0.jpg").unlink()
    process = subprocess.Popen([sys.executable, "-c", PACK_SLOWLY, str(tree), str(pack)])
    while process.poll() is None and (pack / layout.MANIFEST).read_bytes() == before:
        assert len(rows_of(pack)[0]) == 15
        assert isinstance(content_of(pack, "Training/a/0.jpg"), bytes)
        if len(list((pack / layout.DONE).glob("*.parquet"))) > 1:
            process.kill()
    process.wait()
    assert (pack / layout.MANIFEST).read_bytes() == before
    packed(tree, pack)
    assert_holds(pack, tree)


def packed_until_killed(images: Path, pack: Path, monkeypatch: pytest.MonkeyPatch, *, parts: int) -> int:
    """Pack, and be killed after so many parts; tell how many images are in them."""
    made: list[int] = []
    call = write_part.WriteParts.__call__

    def until_killed(self: write_part.WriteParts, number: int) -> bytes:
        if len(made) == parts:
            raise KeyboardInterrupt
        made.append(self.parts[number].images)
        return call(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(write_part.WriteParts, "__call__", until_killed)
        patch.setattr("mission9.pack.make_pack._write_parts", in_this_process)
        with pytest.raises(KeyboardInterrupt):
            packed(images, pack)
    return sum(made)


def test_what_a_killed_pack_has_done_is_not_read_again(
    tree: Path, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_pack, "PART_BYTES", 3 * len(pictures[0]))
    made = packed_until_killed(tree, tmp_path / "pack", monkeypatch, parts=2)
    assert packed(tree, tmp_path / "pack").read == 15 - made
    assert_holds(tmp_path / "pack", tree)


KILLED_WHILE_WRITING = """
import os, sys
from mission9.storage.local import files
from mission9.pack import make_pack
last = sys.argv.pop()
replace = files.Path.replace
def killed(self, target):
    if target.name.endswith(last) or str(target.parent).endswith(last):
        os.kill(os.getpid(), 9)
    return replace(self, target)
files.Path.replace = killed
make_pack.make_pack(*sys.argv[1:])
"""


@pytest.mark.parametrize("at", ["images", "index", "rejects", "plan.parquet", "done", layout.MANIFEST])
def test_what_a_killed_pack_was_writing_is_cleared_away(at: str, tree: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tree), str(pack), at], check=False)
    assert killed.returncode == -9
    assert list(pack.rglob(".*"))
    (pack / layout.IMAGES).mkdir(exist_ok=True)
    (pack / layout.IMAGES / ".theirs.parquet.0123456789ab").write_text("theirs")
    packed(tree, pack)
    assert [file.name for file in pack.rglob(".*")] == [".theirs.parquet.0123456789ab"]
    assert_holds(pack, tree)


@pytest.mark.slow
def test_what_a_killed_pack_has_read_at_last_is_in_one_part(
    odd_tree: Path, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that the pack before could not read, read by a call that was killed before it was shown."""
    monkeypatch.setattr(plan_pack, "PART_BYTES", 6 * len(pictures[0]))
    other = odd_tree / "Training/b/gone-2.jpg"
    other.symlink_to("nothing-2.jpg")
    assert packed(odd_tree, tmp_path / "pack").rejected == 2
    for number, name in enumerate(("nothing.jpg", "nothing-2.jpg", "h.jpg", "i.jpg", "j.jpg", "k.jpg", "l.jpg")):
        (odd_tree / "Training/b" / name).write_bytes(pictures[number])
    assert packed_until_killed(odd_tree, tmp_path / "pack", monkeypatch, parts=1)
    other.unlink()
    assert packed(odd_tree, tmp_path / "pack").rejected == 0
    assert_holds(tmp_path / "pack", odd_tree)
    assert packed(odd_tree, tmp_path / "pack").read == 0


@pytest.mark.slow
@pytest.mark.parametrize("full", ["PART_IMAGES", "PART_BYTES"])
def test_a_full_part_stays_whatever_it_is_full_by(
    full: str, tree: Path, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_pack, full, 5 if full == "PART_IMAGES" else 5 * len(pictures[0]))
    parts = packed(tree, tmp_path / "pack").parts
    assert parts >= 3
    assert packed(tree, tmp_path / "pack").read == 0
    (tree / "Training/b/9.jpg").write_bytes(pictures[9])
    assert packed(tree, tmp_path / "pack").read < 6
    assert_holds(tmp_path / "pack", tree)


def in_this_process(root: Root, store: Any, plan: plan_pack.PackPlan, workers: int | None) -> None:
    task = write_part.WriteParts(root=root, todo=plan.todo, parts=tuple(plan.parts), store=store, max_bytes=MOST)
    for part in plan.parts:
        task(part.number)


def test_places_that_cannot_hold_a_pack_are_refused(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "letter.txt").write_text("dear")
    empty = tmp_path / "empty"
    empty.mkdir()
    for images, output, words in (
        (tree, tmp_path / "file", "is a file"),
        (tree, tmp_path / "others", "letter.txt, not a pack"),
        (tree, tree, "among the images"),
        (tmp_path / "none", tmp_path / "pack", "there is no folder"),
        (empty, tmp_path / "pack", "there are no images"),
    ):
        assert main(["pack", "--input", str(images), "--output", str(output)]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()
    assert (tmp_path / "others" / "letter.txt").read_text() == "dear"


def test_the_results_of_a_run_are_not_packed_over(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "Training/a/broken.jpg").write_bytes(b"no image")
    results = tmp_path / "results"
    features_run(tree, results)
    before = tables(results)
    assert before["rejects"]
    command = ["pack", "--input", str(tree), "--output", str(results)]
    assert main(command) == 2
    assert "holds the results of a run" in capsys.readouterr().err
    (results / "run.json").rename(tmp_path / "run.json")  # as after a run that failed
    assert main(command) == 2
    (results / layout.STATE / "shards").rename(tmp_path / "shards")
    assert main(command) == 2
    (tmp_path / "run.json").rename(results / "run.json")
    assert tables(results) == before
    # A run that was refused has left its lock in a pack, which stays one; so does what others have put beside it.
    pack = tmp_path / "pack"
    packed(tree, pack)
    assert main(["run", "--input", str(tree), "--output", str(pack), "--weights", "demo"]) == 2
    (pack / layout.IMAGES / "notes.txt").write_text("theirs")
    (pack / layout.REJECTS / "part-00000.parquet").write_text("theirs")
    packed(tree, pack, overwrite=True)
    assert (pack / layout.IMAGES / "notes.txt").read_text() == "theirs"
    assert (pack / layout.REJECTS / "part-00000.parquet").read_text() == "theirs"


def test_of_two_that_pack_at_once_one_is_refused(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with file_store(str(tmp_path / "pack")).lock(layout.LOCK):
        assert main(["pack", "--input", str(tree), "--output", str(tmp_path / "pack")]) == 2
    assert "another process is writing" in capsys.readouterr().err


@pytest.mark.slow
def test_so_many_parts_are_never_open_at_a_time(tmp_path: Path, pictures: list[bytes]) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    for number in range(120):
        (folder / f"{number:03}.jpg").write_bytes(b"%d" % number)
    script = PACK_SLOWLY.replace("6_000", "2").replace("time.sleep(0.3)", "pass")
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)){script}"
    subprocess.run([sys.executable, "-c", limited, str(tmp_path / "images"), str(tmp_path / "pack")], check=True)
    assert len(list((tmp_path / "pack" / layout.IMAGES).iterdir())) > 100
    assert_holds(tmp_path / "pack", tmp_path / "images")


@pytest.mark.parametrize("which", ["rejects", "done", "done, of another"])
def test_a_damaged_small_file_costs_what_it_told_of(
    which: str, odd_tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pack = tmp_path / "pack"
    packed(odd_tree, pack)
    first = set((pack / layout.DONE).iterdir())
    (file,) = (pack / layout.REJECTS).iterdir() if which == "rejects" else first
    if "another" in which:
        rows = pq.read_table(file)
        pq.write_table(rows.slice(3), file)
    else:
        os.truncate(file, file.stat().st_size // 2)
    command = ["pack", "--input", str(odd_tree), "--output", str(pack)]
    assert main(command) == 0
    (line,) = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert "the next call retries" in line if which == "rejects" else "that part is made again" in line
    assert (first == set((pack / layout.DONE).iterdir())) == (which == "rejects")
    caplog.clear()
    assert main(command) == 0
    assert not [record for record in caplog.records if "damaged" in record.getMessage()]
    assert_holds(pack, odd_tree)


def test_a_part_that_is_damaged_as_soon_as_it_is_made_is_told(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_part, "_write_index", lambda file, _: file.write_bytes(b"PAR1"))
    assert main(["pack", "--input", str(tree), "--output", str(tmp_path / "pack")]) == 1
    assert "pack again with --overwrite" in capsys.readouterr().err


def test_settings_that_are_not_possible_are_told(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)  # as where it is not installed
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    pack = ["pack", "--output", str(tmp_path / "pack"), "--input"]
    for command, words in (
        ([*pack, str(tree), "--workers", "-1"], "pass 1 or more"),
        ([*pack, str(tree), "--workers", "0"], "pass 1 or more"),
        ([*pack, "memory://[abc/x"], "is not a valid URL"),
        (["run", "--output", str(tmp_path / "out"), "--input", "memory://[abc/x"], "is not a valid URL"),
        ([*pack, "ftp://reader:not-to-be-told@127.0.0.1:9/x"], "credentials are not allowed in a URL"),
    ):
        assert main(command) == 2, command
        said = capsys.readouterr().err
        assert words in said
        assert "not-to-be-told" not in said
    assert not (tmp_path / "pack").exists()
    assert main([*pack, f"file://{tree}"]) == 0
    assert rows_of(tmp_path / "pack") == rows_of(tree)
    main(["doctor", "--input", f"file://{tree}", "--output", str(tmp_path / "out"), "--weights", "demo"])
    assert "images: 3 of Test, 12 of Training" in capsys.readouterr().out


def test_names_of_folders_that_are_not_utf_8(tree: Path, tmp_path: Path) -> None:
    images = tree.rename(os.fsdecode(bytes(tmp_path) + b"/p\xeaches"))
    pack = Path(os.fsdecode(bytes(tmp_path) + b"/p\xeaches, packed"))
    assert main(["pack", "--input", str(images), "--output", str(pack)]) == 0
    assert b"p\\\\xeaches" in (pack / layout.MANIFEST).read_bytes()
    assert rows_of(pack) == rows_of(images)
    assert content_of(pack, "Training/a/1.jpg") == (images / "Training/a/1.jpg").read_bytes()


@pytest.mark.slow
def test_a_plan_of_many_images_takes_no_more_memory(tmp_path: Path) -> None:
    """Peaks of the processes that plan many and few differ by what a row group holds."""
    script = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from mission9.pack.plan_pack import DoneParts, plan_pack
from mission9.schema import LISTING
from mission9.output.tables import TableWriter
count, folder = int(sys.argv[1]), Path(sys.argv[2])
with TableWriter(folder / "listing.parquet", LISTING) as writer:
    for start in range(0, count, 10_000):
        names = [f"Training/{start:08}/{n:05}.jpg" for n in range(10_000)]
        columns = [names, ["Training"] * 10_000, [str(start)] * 10_000, [5000] * 10_000, [1] * 10_000]
        writer.write_batch(pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, LISTING)], schema=LISTING))
plan = plan_pack(folder / "listing.parquet", None, folder, DoneParts())
assert plan.todo_images == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for count in (100_000, 400_000):
        done = subprocess.run(
            [sys.executable, "-c", script, str(count), str(tmp_path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0]


def test_the_index_is_a_table_like_any_other(tree: Path, tmp_path: Path) -> None:
    packed(tree, tmp_path / "pack")
    table = pq.read_table(tmp_path / "pack" / layout.INDEX)
    assert table.schema.equals(layout.INDEX_TABLE)
    assert isinstance(table, pa.Table)
    assert table["sha256"].null_count == 0


@pytest.mark.parametrize(
    ("column", "values"),
    [
        *[("split", [value]) for value in ("../../../x/y", "training", "", None)],
        *[("label", [value]) for value in ("..", "a/b", "a\0b", "", r"a\x2fb", None)],
        *[("path", [value]) for value in ("Training/a/../../x.jpg", "/x.jpg", "Training/a/x\0.jpg", "", None)],
        *[("path", [r"Training/\x2e\x2e/x.jpg"]), ("path", ["Training/a/0.jpg", "Training/a/0.jpg"])],
        *[("path", ["Training/a/1.jpg", "Training/a/0.jpg"]), ("bytes", [None]), ("modified", [None])],
    ],
)
def test_rows_that_no_listing_has_make_no_result(
    column: str, values: list[Any], tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(tree, tmp_path / "pack")
    index = next((tmp_path / "pack" / layout.INDEX).iterdir())
    table = pq.read_table(index)
    at, kept = table.schema.get_field_index(column), table.schema.metadata
    forged = [*values, *table[column].to_pylist()[len(values) :]]
    table = table.set_column(at, table.schema.field(at), pa.array(forged, table.schema.field(at).type))
    pq.write_table(table.replace_schema_metadata(kept), index)
    command = ["run", "--input", str(tmp_path / "pack"), "--output", str(tmp_path / "place/output")]
    assert main([*command, "--weights", "demo", "--components", "3", "--no-report"]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) in (["images", "pack"], ["images", "pack", "place"])
    assert not (tmp_path / "place/output").exists()
