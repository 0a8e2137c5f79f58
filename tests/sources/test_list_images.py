from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mission9.errors import InputError
from mission9.sources import find_root
from mission9.sources.list_images import has_more_images, list_images
from mission9.sources.listing import Listing, ListingCounts, fitting_split


def listed(root: Path, **options: Any) -> tuple[list[dict[str, Any]], ListingCounts]:
    found = ListingCounts()
    batches = list(list_images(find_root(str(root)), found, Listing(**options)))
    rows = pa.Table.from_batches(batches).to_pylist() if batches else []
    assert found.listed.total() == len(rows)
    return rows, found


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")


def test_split_label_size_and_time(tmp_path: Path) -> None:
    put(tmp_path, "Training/Apple Red 1/r_0_100.jpg")
    os.utime(tmp_path / "Training/Apple Red 1/r_0_100.jpg", ns=(0, 1_700_000_000_123_456_789))
    rows, _ = listed(tmp_path)
    assert rows == [
        {
            "path": "Training/Apple Red 1/r_0_100.jpg",
            "split": "Training",
            "label": "Apple Red 1",
            "bytes": 5,
            "modified": 1_700_000_000_123_456_789,
        }
    ]


def test_rows_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    put(tmp_path, "a/z.jpg", "a.b/1.jpg", "a/b/c.jpg", "a-/1.jpg", "B/1.jpg", "é/1.jpg", "a/b.jpg")
    rows, _ = listed(tmp_path)
    paths = [row["path"].encode() for row in rows]
    assert paths == sorted(paths)
    assert len(paths) == 7


def test_split_folders_by_their_usual_names(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.jpg", "VAL/a/1.jpg", "test/a/1.jpg", "other/a/1.jpg")
    rows, _ = listed(tmp_path)
    assert {row["path"]: row["split"] for row in rows} == {
        "VAL/a/1.jpg": "Validation",
        "other/a/1.jpg": "all",
        "test/a/1.jpg": "Test",
        "train/a/1.jpg": "Training",
    }


def test_without_splits_everything_is_all_and_labels_are_folders(tmp_path: Path) -> None:
    put(tmp_path, "set/a/1.jpg", "set/b/deep/2.jpg", "set/3.jpg")
    rows, _ = listed(tmp_path / "set")
    assert {row["split"] for row in rows} == {"all"}
    assert {row["path"]: row["label"] for row in rows} == {"3.jpg": "set", "a/1.jpg": "a", "b/deep/2.jpg": "deep"}


def test_files_that_are_no_images_are_counted_by_extension(tmp_path: Path) -> None:
    put(
        tmp_path, "LICENSE", "README.md", "Training/a/1.jpg", "Training/a/notes.txt", "Training/a/2.TXT", "Test/a/noext"
    )
    rows, found = listed(tmp_path)
    assert [row["path"] for row in rows] == ["Test/a/noext", "Training/a/1.jpg"]
    assert dict(found.skipped) == {"(none)": 1, ".md": 1, ".txt": 2}
    assert found.total == 6
    rows, found = listed(tmp_path, all_files=True)
    assert len(rows) == 6
    assert not found.skipped


def test_odd_names_are_rows_like_any_other(tmp_path: Path) -> None:
    names = ["_x.jpg", ".x.jpg", "A.JPG", "a:b.jpg", "a\nb.jpg", "a%20b.png", "x.jpeg", "x" * 251 + ".jpg"]
    put(tmp_path, *(f"a/{name}" for name in names))
    (tmp_path / "a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    rows, _ = listed(tmp_path)
    assert len(rows) == len(names) + 1
    assert "a/caf\\xe9.jpg" in {row["path"] for row in rows}


def test_links_are_followed_inside_the_input_and_loops_survived(tmp_path: Path) -> None:
    put(tmp_path, "in/a/1.jpg", "in/c/1.jpg", "out/2.jpg")
    root = tmp_path / "in"
    (root / "a" / "loop").symlink_to(root, target_is_directory=True)
    (root / "a" / "self").symlink_to("self")
    (root / "a" / "to_c").symlink_to(root / "c", target_is_directory=True)
    (root / "c" / "to_a").symlink_to(root / "a", target_is_directory=True)
    (root / "b").symlink_to("a", target_is_directory=True)
    (root / "away").symlink_to(tmp_path / "out", target_is_directory=True)
    (root / "a" / "away.jpg").symlink_to(tmp_path / "out" / "2.jpg")
    (root / "a" / "gone.jpg").symlink_to(root / "nowhere")
    rows, found = listed(root)
    folders = {"a": ("a", "a/to_c"), "b": ("b", "b/to_c"), "c": ("c", "c/to_a")}
    paths = {row["path"] for row in rows}
    for first, second in folders.values():
        assert {f"{first}/1.jpg", f"{second}/1.jpg"} <= paths
    assert {"a/gone.jpg", "a/self"} <= paths  # reading them will say what is wrong
    assert not any("loop" in path or "away" in path for path in paths)
    assert max(path.count("/") for path in paths) == 2
    assert found.skipped["(link)"] > 0


def test_results_among_the_images_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "in/a/1.jpg", "in/results/features/x.jpg", "in/results/_state/lock")
    batches = list(
        list_images(
            find_root(str(tmp_path / "in")), found := ListingCounts(), Listing(exclude=str(tmp_path / "in" / "results"))
        )
    )
    assert batches[0]["path"].to_pylist() == ["a/1.jpg"]
    assert found.total == 1


def test_names_that_are_all_extension_are_skipped_by_name(tmp_path: Path) -> None:
    put(tmp_path, "a/.DS_Store", "a/.gitkeep", "a/1.jpg", "test")
    rows, found = listed(tmp_path)
    assert {row["path"]: row["split"] for row in rows} == {"a/1.jpg": "all", "test": "all"}
    assert dict(found.skipped) == {".ds_store": 1, ".gitkeep": 1}


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        listed(tmp_path / "nowhere")
    put(tmp_path, "file.jpg")
    with pytest.raises(InputError, match="is a file"):
        listed(tmp_path / "file.jpg")
    (tmp_path / "empty").mkdir()
    assert listed(tmp_path / "empty")[0] == []


def test_the_split_to_fit_on() -> None:
    assert fitting_split({"Test": 5, "Training": 1, "all": 9}) == "Training"
    assert fitting_split({"Test": 5, "all": 9}) == "all"
    with pytest.raises(InputError, match="none of Training"):
        fitting_split({"Test": 5})


def test_whether_there_are_more_images_than_so_many(tmp_path: Path) -> None:
    put(tmp_path, "Training/a/1.jpg", "Training/a/2.png", "Test/b/3.jpg", "Test/b/notes.md")
    assert [count for count in range(5) if has_more_images(find_root(str(tmp_path)), count)] == [0, 1, 2]
