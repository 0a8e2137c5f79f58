"""Predict each label from the nearest neighbours: the accuracy, and the confusions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mission9.html_report.neighbours import nearest
from mission9.html_report.sample import Sample
from mission9.results.evaluate import halves
from mission9.results.reader import Results

MAX_JUDGED = 5_000
NEIGHBOURS = 5  # whose labels are compared with an image's own


@dataclass(frozen=True)
class Judgement:
    """Labels of one split predicted from another; `pairs` counts (label, label of the nearest).

    `unseen` counts images without a prediction, by label: their label is absent from the other split.
    """

    fitted_on: str
    judged_on: str
    fitted: int
    judged: int
    thinned: bool
    pairs: Counter[tuple[str, str]]
    unseen: dict[str, int]

    @property
    def right(self) -> int:
        """The number of correct predictions."""
        return sum(count for (label, predicted), count in self.pairs.items() if label == predicted)

    def by_label(self) -> dict[str, tuple[int, int]]:
        """The number of correct predictions and of images, by label."""
        judged: Counter[str] = Counter()
        right: Counter[str] = Counter()
        for (label, predicted), count in self.pairs.items():
            judged[label] += count
            right[label] += count * (label == predicted)
        return {label: (right[label], judged[label]) for label in sorted(judged)}

    def mistakes(self) -> list[tuple[str, str, int]]:
        """Label, predicted label and count of each confusion; the most frequent first."""
        wrong = [(label, predicted, count) for (label, predicted), count in self.pairs.items() if label != predicted]
        return sorted(wrong, key=lambda pair: (-pair[2], pair[:2]))


def judge(results: Results, sample: Sample) -> Judgement:
    """Predict the split that `mission9 evaluate` tests from the one that it trains on.

    Raises:
        InputError: there are not two labels, or no images to predict.
    """
    found = halves(results, sample.scores, len(sample.images), MAX_JUDGED)
    predicted = found.fitted.labels[nearest(found.fitted.pca, found.judged.pca, 1)[0][:, 0]]
    pairs = Counter(zip(found.judged.labels.tolist(), predicted.tolist(), strict=True))
    thinned = found.thinned or len(sample.images) < sample.counts.total()
    counts = len(found.fitted), len(found.judged)
    return Judgement(found.fitted_on, found.judged_on, *counts, thinned, pairs, found.unseen)


def at_odds(labels: NDArray[np.object_], neighbours: NDArray[np.int64]) -> NDArray[np.int64]:
    """The images most of whose five nearest neighbours have another label, those with the most such first."""
    others = labels[neighbours[:, :NEIGHBOURS]] != labels[:, np.newaxis]
    odd = others.sum(1)
    return np.argsort(-odd, kind="stable")[: int((2 * odd > others.shape[1]).sum())]
