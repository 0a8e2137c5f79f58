"""The findings of the report, compared with plain arithmetic and files made for it."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from mission9.errors import OutputError
from mission9.html_report.identical import Group, identical_images
from mission9.html_report.neighbour_accuracy import at_odds, judge
from mission9.html_report.neighbours import nearest, nearest_others
from mission9.html_report.sample import draw_sample
from mission9.html_report.text import LONGEST, setting, shown
from mission9.results.reader import Results
from mission9.sampling import evenly
from tests.html_report.conftest import TEST, TRAINING


def distances(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sqrt(((asked[:, np.newaxis].astype(np.float64) - known) ** 2).sum(2))
    return found


def test_neighbours_are_the_nearest_with_their_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mission9.html_report.neighbours._BLOCK", 1000)  # several blocks, the last of another size
    rows = np.random.default_rng(1).normal(100, 1, (157, 6)).astype(np.float32)
    rows[5] = rows[9]
    plain = distances(rows, rows)
    np.fill_diagonal(plain, np.inf)
    places, far = nearest_others(rows, 8)
    assert np.allclose(far, np.sort(plain, 1)[:, :8], atol=1e-5)
    assert np.allclose(np.take_along_axis(plain, places, 1), far, atol=1e-5)
    assert (places[5, 0], places[9, 0]) == (9, 5)
    assert far[5, 0] < 1e-5
    places, far = nearest(rows[10:60], rows[60:], 3)
    assert np.array_equal(places, np.argsort(distances(rows[10:60], rows[60:]), 1)[:, :3])


@pytest.mark.parametrize("images", [1, 2, 3])
def test_few_images_have_few_neighbours(images: int) -> None:
    rows = np.eye(3, dtype=np.float32)[:images]
    places, far = nearest_others(rows, 8)
    assert places.shape == far.shape == (images, images - 1)
    assert not len(at_odds(np.array(["a"] * images, object), places))


def test_an_image_is_at_odds_when_most_of_its_five_neighbours_bear_another_label() -> None:
    labels = np.array(list("aaabbb"), object)
    neighbours = np.array(
        [
            [1, 2, 3, 4, 0],  # two of another label: as it should be
            [3, 4, 5, 0, 2],  # three
            [3, 4, 5, 3, 4],  # all
            [4, 5, 4, 5, 4],  # none
            [0, 1, 5, 5, 2],  # three
            [3, 4, 3, 4, 0],  # one
        ]
    )
    assert at_odds(labels, neighbours).tolist() == [2, 1, 4]


def test_thinning_is_even_and_keeps_the_ends() -> None:
    assert evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly(101, 5).tolist() == [0, 25, 50, 75, 100]
    assert len(set(evenly(100_000, 4_000))) == 4_000


def test_the_sample_of_few_images_is_all_of_them_in_order(results: Results) -> None:
    sample = draw_sample(results)
    assert sample.counts.total() == len(sample.images) == len(sample.shown) == TRAINING + TEST
    for split in ("Training", "Test"):
        ours, theirs = sample.scores(split), results.scores(split)
        assert ours.paths.tolist() == theirs.paths.tolist()
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert np.array_equal(ours.pca, theirs.pca)


def test_the_sample_of_many_is_thinned_by_split_with_the_right_scores(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.html_report.sample.MAX_KNOWN", 40)
    monkeypatch.setattr("mission9.html_report.sample.MAX_SHOWN", 20)
    sample = draw_sample(results)
    assert Counter(sample.column("split")) == {"Training": 40, "Test": 40}
    assert Counter(sample.column("split")[sample.shown]) == {"Training": 10, "Test": 10}
    assert sample.counts.total() == len(sample.prefixes) == TRAINING + TEST
    every = results.scores("Training")
    places = evenly(TRAINING, 40)
    assert sample.scores("Training").paths.tolist() == every.paths[places].tolist()
    assert np.array_equal(sample.scores("Training").pca, every.pca[places])


def test_a_table_that_does_not_fit_its_report_is_told(few: Results) -> None:
    found = replace(few, report=deepcopy(few.report))
    found.report.splits["Test"].featured = 2
    with pytest.raises(OutputError, match="differ from its report"):
        draw_sample(found)


def test_labels_are_told_by_the_nearest_neighbour(results: Results) -> None:
    found = judge(results, draw_sample(results))
    fitted, judged = results.scores("Training"), results.scores("Test")
    told = fitted.labels[distances(fitted.pca, judged.pca).argmin(1)]
    assert found.pairs == Counter(zip(judged.labels, told, strict=True))
    assert (found.fitted, found.judged, found.right) == (TRAINING, TEST, int((told == judged.labels).sum()))
    assert sum(judged for _, judged in found.by_label().values()) == TEST
    assert sum(count for _, _, count in found.mistakes()) == TEST - found.right
    assert ("Lime", "Lemon") in [pair[:2] for pair in found.mistakes()]  # the leak, told by itself


def test_identical_images_are_found_across_labels_and_splits(results: Results) -> None:
    files = ("Test/Lime/leak.jpg", "Test", "Lime"), ("Training/Lemon/3_100.jpg", "Training", "Lemon")
    (group,) = identical_images(results, draw_sample(results))
    assert group == Group(files)
    assert group.leaks
    assert group.crosses_labels


def test_text_hides_nothing_and_stays_short() -> None:
    assert shown("a\nb\x07\u202egnp\x00\u2028\u2066") == r"a\nb\x07\u202egnp\x00\u2028\u2066"
    assert shown("Äpfel 🍎 <b>") == "Äpfel 🍎 <b>"  # escaping is the template's
    assert len(shown("x" * 5000)) < LONGEST + 5
    assert setting("https://user:secret@host/x") == "https://***@host/x"
