"""`mission9 evaluate`: labels told by scores, held against plain arithmetic."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.datasets.demo import VARIETIES
from mission9.errors import InputError
from mission9.output.layout import PAGE
from mission9.results.evaluate import evaluate, halves
from mission9.results.reader import Results, Scores
from tests.conftest import InProcessRunner
from tests.support.finished import copy_tree


def results_of(images: Path, output: Path, components: int = 12) -> Results:
    settings = {"input": str(images), "output": str(output), "weights": "demo", "components": components}
    run(RunConfig(**settings, max_reject_rate=0.5), InProcessRunner())
    return Results.of(output)


def nearest_labels(fitted: Scores, judged: Scores, components: int) -> np.ndarray:
    known, asked = fitted.pca[:, :components].astype(np.float64), judged.pca[:, :components].astype(np.float64)
    distances = ((asked[:, np.newaxis] - known) ** 2).sum(2)
    labels: np.ndarray = fitted.labels[distances.argmin(1)]
    return labels


def test_the_nearest_neighbour_is_the_nearest(fruits_results: Results) -> None:
    found = evaluate(fruits_results)
    fitted, judged = fruits_results.scores("Training"), fruits_results.scores("Test")
    assert (found.fitted, found.judged) == (len(VARIETIES) * 10, len(VARIETIES) * 5)
    assert (found.thinned, found.unseen, found.not_judged) == (False, [], 0)
    assert list(found.curve) == [10, 25, 50]
    for components, accuracy in found.curve.items():
        told = nearest_labels(fitted, judged, components)
        assert accuracy.nearest == pytest.approx((told == judged.labels).mean(), abs=1e-4)
    assert found.overall == found.curve[50]
    pairs = Counter(zip(judged.labels, nearest_labels(fitted, judged, 50), strict=True))
    assert {(label, said): n for label, row in found.confusion.items() for said, n in row.items()} == pairs
    assert sum(accuracy.images for accuracy in found.per_label.values()) == len(VARIETIES) * 5
    for label, accuracy in found.per_label.items():
        assert accuracy.nearest == pytest.approx(found.confusion[label].get(label, 0) / accuracy.images, abs=1e-4)
    assert found.overall.logistic > 0.9


def test_scores_come_in_order_of_path_with_their_own_labels(fruits_results: Results) -> None:
    scores = fruits_results.scores("Test")
    assert list(scores.paths) == sorted(scores.paths)
    assert [path.split("/")[1] for path in scores.paths] == list(scores.labels)


def test_a_run_into_a_given_space_is_judged_from_training_to_test(fruits_results: Results, tmp_path: Path) -> None:
    output = copy_tree(fruits_results.root, tmp_path / "out")
    settings = {"input": str(output.parent / "fruits"), "output": str(output), "weights": "demo"}
    copy_tree(fruits_results.root.parent / "fruits", output.parent / "fruits")
    run(RunConfig(**settings, pca_model=str(fruits_results.root / "pca_model")), InProcessRunner())
    assert evaluate(Results.of(output)) == evaluate(fruits_results)


def test_results_hold_the_model_and_the_rejects(fruits_results: Results) -> None:
    assert fruits_results.model().n_components_ == 50
    assert len(fruits_results.rejects()) == 0


def test_without_a_test_split_every_fifth_image_of_a_label_is_told_by_the_others(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "Test")
    found = evaluate(results_of(tree / "Training", tmp_path / "out", components=3))
    assert (found.fitted_on, found.judged_on) == ("all, four fifths", "all, every fifth")
    assert (found.fitted, found.judged) == (10, 2)


def test_labels_that_were_never_seen_are_counted_and_not_judged(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "Test/other").mkdir()
    shutil.move(tree / "Test/a/0.jpg", tree / "Test/other/0.jpg")
    results = results_of(tree, tmp_path / "out", components=3)
    found = evaluate(results)
    assert (found.judged, found.unseen, found.not_judged) == (2, ["other"], 1)
    assert sorted(found.per_label) == sorted(found.confusion) == ["a", "b"]
    assert found.overall.images == found.curve[3].images == 2
    assert main(["evaluate", str(results.root)]) == 0
    told = capsys.readouterr().out
    assert told.endswith("not judged: 1 images of labels that Training does not have: other\n")
    page = (results.root / PAGE).read_text()
    assert "Not judged are 1 images of labels that Training does not have: other." in page
    assert "2 images of Test, each classified" in page


def test_where_no_label_is_shared_nothing_is_judged(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in "ab":
        (tree / "Test" / label).rename(tree / "Test" / f"other {label}")
    results = results_of(tree, tmp_path / "out", components=3)
    for options in ([], ["--json"]):
        assert main(["evaluate", str(results.root), *options]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert "no label of Test (other a, other b) is one of Training (a, b): name the labels alike" in told.err
    page = (results.root / PAGE).read_text()
    assert "No accuracy: no label of Test (other a, other b) is one of Training (a, b)" in page
    assert "classified correctly" not in page
    assert 'id="matrix"' not in page


@pytest.mark.parametrize("splits", [["Training", "Test"], ["Training"]])
def test_one_label_is_nothing_to_tell_apart(fruits_results: Results, splits: list[str]) -> None:
    def read(split: str) -> Scores:
        scores = fruits_results.scores(split)
        return replace(scores, labels=np.full(len(scores), "a", np.object_))

    report = replace(fruits_results.report, splits={name: fruits_results.report.splits[name] for name in splits})
    with pytest.raises(InputError, match="has the label a alone: give a result of at least two"):
        halves(replace(fruits_results, report=report), read, 1000, 1000)


def test_more_than_can_be_compared_is_thinned_out_and_said_to_be(
    fruits_results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.results.evaluate.MAX_FITTED", 100)
    found = evaluate(fruits_results)
    assert (found.fitted, found.judged, found.thinned) == (100, len(VARIETIES) * 5, True)


def test_the_command_prints_a_table_or_json(fruits_results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(fruits_results.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{len(VARIETIES) * 5} images of Test, classified from {len(VARIETIES) * 10} of Training"
    assert lines[2].split() == ["components", "images", "1-NN", "5-NN", "logistic"]
    assert main(["evaluate", str(fruits_results.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judged"] == len(VARIETIES) * 5


def test_where_there_is_no_result_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 2
    assert f"there is no result in {tmp_path}" in capsys.readouterr().err
