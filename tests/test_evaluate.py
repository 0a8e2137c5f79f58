"""`mission9 evaluate`: labels told by scores, held against plain arithmetic."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.evaluate import evaluate
from mission9.results import Results, Scores
from tests.conftest import InProcessRunner


def results_of(images: Path, output: Path, components: int = 12) -> Results:
    settings = {"input": str(images), "output": str(output), "weights": "demo", "components": components}
    run(RunConfig(**settings, max_reject_rate=0.5), InProcessRunner())
    return Results.of(output)


@pytest.fixture(scope="module")
def results(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(sample, tmp_path_factory.mktemp("evaluate") / "out")


def nearest_labels(fitted: Scores, judged: Scores, components: int) -> np.ndarray:
    known, asked = fitted.pca[:, :components].astype(np.float64), judged.pca[:, :components].astype(np.float64)
    distances = ((asked[:, np.newaxis] - known) ** 2).sum(2)
    labels: np.ndarray = fitted.labels[distances.argmin(1)]
    return labels


def test_the_nearest_neighbour_is_the_nearest(results: Results) -> None:
    found = evaluate(results)
    fitted, judged = results.scores("Training"), results.scores("Test")
    assert (found.fitted, found.judged, found.thinned, found.unseen) == (480, 160, False, [])
    assert list(found.curve) == [10, 12]
    for components, accuracy in found.curve.items():
        told = nearest_labels(fitted, judged, components)
        assert accuracy.nearest == pytest.approx((told == judged.labels).mean(), abs=1e-4)
    assert found.overall == found.curve[12]
    pairs = Counter(zip(judged.labels, nearest_labels(fitted, judged, 12), strict=True))
    assert {(label, said): n for label, row in found.confusion.items() for said, n in row.items()} == pairs
    assert sum(accuracy.images for accuracy in found.per_label.values()) == 160
    for label, accuracy in found.per_label.items():
        assert accuracy.nearest == pytest.approx(found.confusion[label].get(label, 0) / accuracy.images, abs=1e-4)
    assert found.overall.logistic > 0.9


def test_scores_come_in_order_of_path_with_their_own_labels(results: Results) -> None:
    scores = results.scores("Test")
    assert list(scores.paths) == sorted(scores.paths)
    assert [path.split("/")[1] for path in scores.paths] == list(scores.labels)


def test_a_run_into_a_given_space_is_judged_from_training_to_test(
    results: Results, sample: Path, tmp_path: Path
) -> None:
    settings = {"input": str(sample), "output": str(tmp_path / "out"), "weights": "demo"}
    run(RunConfig(**settings, pca_model=str(results.root / "pca_model")), InProcessRunner())
    assert evaluate(Results.of(tmp_path / "out")) == evaluate(results)


def test_results_hold_the_model_and_the_rejects(results: Results) -> None:
    assert results.model().n_components_ == 12
    assert len(results.rejects()) == 0


def test_without_a_test_split_every_fifth_image_of_a_label_is_told_by_the_others(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "Test")
    found = evaluate(results_of(tree / "Training", tmp_path / "out", components=3))
    assert (found.fitted_on, found.judged_on) == ("all, four fifths", "all, every fifth")
    assert (found.fitted, found.judged) == (10, 2)


def test_a_label_that_was_never_seen_is_told_wrong_and_said_to_be_unseen(tree: Path, tmp_path: Path) -> None:
    shutil.move(tree / "Training" / "b" / "0.jpg", tree / "Test" / "a" / "9.jpg")
    shutil.rmtree(tree / "Training" / "b")
    found = evaluate(results_of(tree, tmp_path / "out", components=3))
    assert found.unseen == ["b"]
    assert found.per_label["b"].nearest == found.per_label["b"].logistic == 0
    assert found.confusion["b"] == {"a": 1}


def test_more_than_can_be_compared_is_thinned_out_and_said_to_be(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.evaluate.MOST_FITTED", 100)
    found = evaluate(results)
    assert (found.fitted, found.judged, found.thinned) == (100, 160, True)


def test_the_command_prints_a_table_or_json(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(results.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "160 images of Test, told by 480 of Training"
    assert lines[2].split() == ["components", "images", "1-NN", "5-NN", "logistic"]
    assert main(["evaluate", str(results.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judged"] == 160


def test_where_there_is_no_result_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 2
    assert f"there is no result in {tmp_path}" in capsys.readouterr().err
