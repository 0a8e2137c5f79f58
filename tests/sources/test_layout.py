"""The folders that a listing takes for splits, tools or results; its refusals, and the options that answer them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.doctor.checks import examine
from mission9.errors import InputError
from mission9.sources import find_root
from mission9.sources.layout import split_named
from mission9.sources.list_images import check_links, list_images
from mission9.sources.listing import Listing, ListingCounts
from tests.conftest import InProcessRunner
from tests.support.finished import write_tree


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")
    return root


def splits_in(root: Path, listing: Listing | None = None) -> tuple[dict[str, str], ListingCounts]:
    """The split of each path."""
    found = ListingCounts()
    batches = list_images(find_root(str(root)), found, listing or Listing())
    rows = [row for batch in batches for row in batch.to_pylist()]
    check_links(str(root), found)
    return {row["path"]: row["split"] for row in rows}, found


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("Training", ["Training", "train", "TRAIN", "Training ", "train_set", "training-images", "train.0", "train2"]),
        ("Validation", ["validation", "valid", "Val", "dev", "validation_set"]),
        ("Test", ["Test", "Testing", "testing_data", "eval", "Evaluation", "test_images"]),
        (None, ["trained", "test-multiple_fruits", "latest", "papers", "Apple", "set", "", "123", "contest", "devil"]),
    ],
)
def test_names_of_splits_are_those_of_the_hub(split: str | None, names: list[str]) -> None:
    assert {name: split_named(name) for name in names} == dict.fromkeys(names, split)


@pytest.mark.parametrize(
    ("names", "layout", "splits"),
    [
        (["train/a/1.jpg", "Testing/a/1.jpg"], "Test from Testing/, Training from train/", {"Training", "Test"}),
        (["Training/a/1.jpg"], "Training from Training/", {"Training"}),
        (
            ["Training/a/1.jpg", "Test/a/1.jpg", "test-multiple_fruits/1.jpg", "LICENSE"],
            "Test from Test/, Training from Training/",
            {"Training", "Test", "all"},
        ),
        (
            ["data/fruits/train/a/1.jpg", "data/fruits/valid/a/1.jpg", "data/fruits/LICENSE", "data/.git/HEAD"],
            "Training from data/fruits/train/, Validation from data/fruits/valid/",
            {"Training", "Validation"},
        ),
        (["animals/train/1.jpg", "animals/plane/1.jpg", "x/1.jpg"], "no folders of splits: every image is of", {"all"}),
        (["a/1.jpg", "b/1.jpg"], "no folders of splits: every image is of one split, all", {"all"}),
        (["only/a/1.jpg", "only/b/1.jpg"], "no folders of splits: every image is of one split, all", {"all"}),
    ],
)
def test_what_is_understood(names: list[str], layout: str, splits: set[str], tmp_path: Path) -> None:
    found, told = splits_in(put(tmp_path, *names))
    assert str(told.layout).startswith(layout)
    assert set(found.values()) == splits


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/1.jpg", "bus/1.jpg", "car/1.jpg"],
            r"train/ in .* may be a label or split Training, next to bus/, car/",
        ),
        (["Test/a/1.jpg", "a/1.jpg"], r"Test/ in .* may be a label or split Test, next to a/"),
        (["train/a/1.jpg", "Training/a/1.jpg", "Test/a/1.jpg"], r"Training/ and train/ in .* both mean Training"),
        (
            ["one/Training/a/1.jpg", "one/Test/a/1.jpg", "two/Training/a/1.jpg"],
            r"one/Test/ and one/Training/ in .* pass --input .*/one,",
        ),
        (["bus/train/1.jpg", "bus/test/1.jpg", "car/train/1.jpg"], r"bus/test/ and bus/train/ in .* look like splits"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_choice(names: list[str], message: str, tmp_path: Path) -> None:
    put(tmp_path, *names)
    with pytest.raises(InputError, match=message) as refused:
        splits_in(tmp_path)
    assert "--splits none" in str(refused.value)
    assert set(splits_in(tmp_path, Listing(splits_from="none"))[0].values()) == {"all"}


def test_the_user_may_say_that_folders_beside_labels_are_splits(tmp_path: Path) -> None:
    found, _ = splits_in(put(tmp_path, "train/1.jpg", "bus/1.jpg"), Listing(splits_from="folders"))
    assert found == {"train/1.jpg": "Training", "bus/1.jpg": "all"}


def test_folders_of_tools_are_left_out_and_counted_by_name(tmp_path: Path) -> None:
    names = [".git/objects/ab/cd", ".git/1.jpg", "a/.ipynb_checkpoints/1.jpg", "__MACOSX/a/._1.jpg", "a/._1.jpg"]
    names += ["a/@eaDir/1.jpg/THUMB.jpg", "a/1.jpg", "b/node_modules/x/2.png", ".dvc/cache/0a/1"]
    found, told = splits_in(put(tmp_path, *names))
    assert list(found) == ["a/1.jpg"]
    assert dict(told.skipped) == {
        ".git/": 2,
        ".ipynb_checkpoints/": 1,
        "__MACOSX/": 1,
        "._*": 1,
        "@eaDir/": 1,
        "node_modules/": 1,
        ".dvc/": 1,
    }
    assert len(splits_in(tmp_path, Listing(all_files=True))[0]) == len(names)


def test_results_among_the_images_are_left_out_whoever_made_them(tmp_path: Path) -> None:
    names = ["a/1.jpg", "old results/_state/lock", "old results/features/part-0", "old results/page.png"]
    for listing in (Listing(), Listing(all_files=True)):
        found, told = splits_in(put(tmp_path, *names), listing)
        assert list(found) == ["a/1.jpg"]
        assert dict(told.skipped) == {"(result of mission9)": 3}


def linked(tmp_path: Path) -> Path:
    """Training and Test as links to folders elsewhere, which lead to each other and above."""
    put(tmp_path / "elsewhere", "Training/a/1.jpg", "Test/a/1.jpg", "blob")
    root = tmp_path / "in"
    root.mkdir()
    for split in ("Training", "Test"):
        (root / split).symlink_to(tmp_path / "elsewhere" / split, target_is_directory=True)
        (tmp_path / "elsewhere" / split / "up").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "elsewhere" / split / "round").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/Test/a/2.jpg").symlink_to(tmp_path / "elsewhere" / "blob")
    return root


def test_links_to_splits_are_told_and_followed_on_request(tmp_path: Path) -> None:
    root = linked(tmp_path)
    with pytest.raises(InputError, match=r"Test, Training in .* are links .* --follow-links"):
        splits_in(root)
    found, _ = splits_in(root, Listing(follow_links=True))
    assert found["Training/a/1.jpg"] == "Training"
    assert found["Test/a/2.jpg"] == "Test"
    assert max(path.count("/") for path in found) < 8  # links that lead in circles come to an end
    (root / "Training").unlink()
    put(root, "Training/a/1.jpg", "Training/b/1.jpg")
    (root / "valid").symlink_to(tmp_path / "elsewhere" / "Test", target_is_directory=True)
    for number in range(9):  # more than are told of by name
        (root / f"Training/a/x{number}.jpg").symlink_to(tmp_path / "elsewhere" / "blob")
    with pytest.raises(InputError, match=r"Test, valid, ... in .* are links"):
        splits_in(root)
    (root / "valid").unlink()
    with pytest.raises(InputError, match=r"Test, ... in .* are links"):  # half of it would be no success
        splits_in(root)


def test_a_link_to_one_label_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = put(tmp_path / "in", "a/1.jpg")
    (root / "b").symlink_to(put(tmp_path / "b", "1.jpg"), target_is_directory=True)
    found, told = splits_in(root)
    assert (list(found), dict(told.skipped), told.links) == (["a/1.jpg"], {"(link)": 1}, ["b"])


@pytest.mark.parametrize(
    ("level", "labels"),
    [
        (None, ["Golden 1", "Apple", "Red", "set", "Training", "b"]),
        (1, ["Apple", "Apple", "Pear", "a", "Training", "b"]),
        (2, ["Golden 1", "Apple", "Red", "set", "Training", "b"]),
        (3, ["Golden 1", "Apple", "Red", "set", "Training", "b"]),
    ],
)
def test_the_label_may_be_a_folder_further_up(tmp_path: Path, level: int | None, labels: list[str]) -> None:
    names = ["Training/Apple/Golden 1/1.jpg", "Training/Apple/1.jpg", "Test/Pear/Red/1.jpg", "a/set/1.jpg"]
    root = put(tmp_path / "three", *(f"data/{name}" for name in [*names, "Training/1.jpg", "b/1.jpg"]))
    listing = Listing(splits_from="folders", label_level=level)
    rows = [row for batch in list_images(find_root(str(root)), ListingCounts(), listing) for row in batch.to_pylist()]
    found = {row["path"].removeprefix("data/"): row["label"] for row in rows}
    assert [found[name] for name in [*names, "Training/1.jpg", "b/1.jpg"]] == labels


def test_a_result_and_what_is_printed_say_what_was_understood(
    tmp_path: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path / "images", pictures)
    (root / "Training").rename(root / "train")
    settings = {"input": str(tmp_path / "images"), "weights": "demo", "components": 3}
    config = RunConfig(**settings, output=str(tmp_path / "out"))
    run(config, InProcessRunner())
    told = "Test from Test/, Training from train/"
    assert json.loads((tmp_path / "out/run.json").read_text())["layout"] == told
    assert told in (tmp_path / "out/report.html").read_text()
    assert any(told in finding.found for finding in examine(config) if finding.what == "input")
    (root / "Test").rename(root / "bus")
    capsys.readouterr()
    command = [
        "run",
        "--input",
        str(root),
        "--output",
        str(tmp_path / "other"),
        "--weights",
        "demo",
        "--components",
        "3",
    ]
    assert main(command) == 2
    assert "train/ in" in capsys.readouterr().err
    assert main([*command, "--splits", "none"]) == 0
    assert json.loads((tmp_path / "other/run.json").read_text())["splits"].keys() == {"all"}
    assert main([*command, "--splits", "none", "--label-level", "1"]) == 0
    assert {folder.name for folder in (tmp_path / "other/all_pca").iterdir()} == {"label=bus", "label=train"}
    assert main([*command, "--label-level", "0"]) == 2
