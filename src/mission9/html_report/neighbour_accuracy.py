"""Judge each label by its nearest neighbours: how many are told right, and what is taken for what."""

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
NEIGHBOURS = 5  # whose labels are held against an image's own


@dataclass(frozen=True)
class Judgement:
    """Images of one split told by those of another; `pairs` counts (label, label of the nearest).

    `unseen` counts images that are not judged, by label: those whose label is not learnt.
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
        """Return how many were told right."""
        return sum(count for (label, told), count in self.pairs.items() if label == told)

    def by_label(self) -> dict[str, tuple[int, int]]:
        """Return how many images of each label were told right, and how many there are."""
        judged: Counter[str] = Counter()
        right: Counter[str] = Counter()
        for (label, told), count in self.pairs.items():
            judged[label] += count
            right[label] += count * (label == told)
        return {label: (right[label], judged[label]) for label in sorted(judged)}

    def mistakes(self) -> list[tuple[str, str, int]]:
        """Label, what its images were taken for, and how many; the most first."""
        wrong = [(label, told, count) for (label, told), count in self.pairs.items() if label != told]
        return sorted(wrong, key=lambda pair: (-pair[2], pair[:2]))


def judge(results: Results, sample: Sample) -> Judgement:
    """The split that `mission9 evaluate` judges, told by the one it learns from.

    Raises:
        InputError: there is nothing to tell apart.
    """
    found = halves(results, sample.scores, len(sample.images), MAX_JUDGED)
    told = found.fitted.labels[nearest(found.fitted.pca, found.judged.pca, 1)[0][:, 0]]
    pairs = Counter(zip(found.judged.labels.tolist(), told.tolist(), strict=True))
    thinned = found.thinned or len(sample.images) < sample.counts.total()
    counts = len(found.fitted), len(found.judged)
    return Judgement(found.fitted_on, found.judged_on, *counts, thinned, pairs, found.unseen)


def at_odds(labels: NDArray[np.object_], neighbours: NDArray[np.int64]) -> NDArray[np.int64]:
    """The images of whose five nearest neighbours most bear another label, those with the most such first."""
    others = labels[neighbours[:, :NEIGHBOURS]] != labels[:, np.newaxis]
    odd = others.sum(1)
    return np.argsort(-odd, kind="stable")[: int((2 * odd > others.shape[1]).sum())]
