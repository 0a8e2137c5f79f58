"""Evaluate how well scores separate labels: nearest neighbours and logistic regression, from Training to Test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mission9.errors import InputError, SetupError
from mission9.results.reader import Results, Scores
from mission9.sampling import evenly
from mission9.schema import TEST, TRAINING, VALIDATION

NEIGHBOURS = 5

# Limits of rows; more are thinned evenly, in order of path. The cost of nearest neighbours is the product of both.
MAX_FITTED, MAX_JUDGED = 100_000, 25_000

_FEW_LABELS = 3  # in an error message

_STEPS = (10, 25, 50, 100, 200, 400, 800)


@dataclass(frozen=True)
class Accuracy:
    """The number of images, and the share of them whose label each method predicts correctly."""

    images: int
    nearest: float
    neighbours: float
    logistic: float


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of classifiers fitted on `fitted` images of one split, for `judged` images of another.

    `curve` is the accuracy by number of components. `confusion` counts judged images by label and by the label of their
    nearest neighbour. `unseen` are the labels absent from the fitted images. Their `not_judged` images, which no
    classifier could predict correctly, count nowhere.
    """

    fitted_on: str
    judged_on: str
    fitted: int
    judged: int
    thinned: bool
    overall: Accuracy
    per_label: dict[str, Accuracy]
    curve: dict[int, Accuracy]
    unseen: list[str]
    not_judged: int
    confusion: dict[str, dict[str, int]]


def evaluate(results: Results) -> Evaluation:
    """Evaluate the scores of a run: fit on Training and judge Test, or else judge every fifth image of each label.

    Raises:
        SetupError: scikit-learn is not installed.
        InputError: images are missing to fit on or to judge, the two have no common label, or there is only one label.
        OutputError: the tables are missing or damaged.
    """
    found = halves(results, results.scores, MAX_FITTED, MAX_JUDGED)
    predicted = {count: _predict(found, count) for count in _counts(found.fitted.pca.shape[1])}
    last, labels = predicted[max(predicted)], found.judged.labels
    return Evaluation(
        fitted_on=found.fitted_on,
        judged_on=found.judged_on,
        fitted=len(found.fitted),
        judged=len(found.judged),
        thinned=found.thinned,
        overall=_accuracy(last, labels, slice(None)),
        per_label={label: _accuracy(last, labels, labels == label) for label in sorted(set(labels))},
        curve={count: _accuracy(each, labels, slice(None)) for count, each in predicted.items()},
        unseen=sorted(found.unseen),
        not_judged=sum(found.unseen.values()),
        confusion=_confusion(labels, last.nearest),
    )


@dataclass(frozen=True)
class Halves:
    """The images to fit on and to judge, of fitted labels; `unseen` counts the images of each other label."""

    fitted_on: str
    judged_on: str
    fitted: Scores
    judged: Scores
    unseen: dict[str, int]
    thinned: bool


@dataclass(frozen=True)
class _Predictions:
    """The predictions of each method for each image."""

    nearest: NDArray[np.object_]
    neighbours: NDArray[np.object_]
    logistic: NDArray[np.object_]


def halves(results: Results, read: Callable[[str], Scores], most_fitted: int, most_judged: int) -> Halves:
    """Divide the scores of a result into those to fit on and those to judge; `read` gives the scores of a split.

    More than `most_fitted` or `most_judged` images are thinned evenly.

    Raises:
        InputError: there are too few images, only one label, or no common label.
    """
    (fitted_on, all_fitted), (judged_on, all_judged) = _parted(results, read)
    if not len(all_fitted) or not len(all_judged):
        raise InputError(
            f"there are {len(all_fitted)} images to learn from and {len(all_judged)} to judge: add images, both are "
            "needed"
        )
    fitted = _thin(all_fitted, most_fitted)
    learnt = set(fitted.labels)
    if len(learnt) == 1:
        raise InputError(f"{fitted_on} has the label {fitted.labels[0]} alone: give a result of at least two")
    is_learnt = np.array([label in learnt for label in all_judged.labels], np.bool_)
    if not is_learnt.any():
        raise InputError(
            f"no label of {judged_on} ({_few(all_judged)}) is one of {fitted_on} ({_few(fitted)}): name the "
            "labels alike"
        )
    judged = _thin(all_judged.take(is_learnt), most_judged)
    thinned = len(fitted) < len(all_fitted) or len(judged) < is_learnt.sum()
    unseen = dict(Counter(all_judged.labels[~is_learnt].tolist()))
    return Halves(fitted_on, judged_on, fitted, judged, unseen, bool(thinned))


def _few(scores: Scores) -> str:
    labels = sorted(set(scores.labels))
    return ", ".join(labels[:_FEW_LABELS]) + (", ..." if len(labels) > _FEW_LABELS else "")


def _parted(results: Results, read: Callable[[str], Scores]) -> tuple[tuple[str, Scores], tuple[str, Scores]]:
    """The name and scores of the images to fit on, then of those to judge."""
    candidates = (results.report.fitted_on, TRAINING, *results.splits)  # with --pca-model, the run fitted nothing
    fitted_on = next((split for split in candidates if split in results.splits), None)
    if fitted_on is None:
        raise InputError(f"there are no scores in {results.root}")
    judged_on = next((split for split in (TEST, VALIDATION) if split in results.splits and split != fitted_on), None)
    scores = read(fitted_on)
    if judged_on is not None:
        return (fitted_on, scores), (judged_on, read(judged_on))
    held = _every_fifth(scores.labels)
    return (f"{fitted_on}, four fifths", scores.take(~held)), (f"{fitted_on}, every fifth", scores.take(held))


def _every_fifth(labels: NDArray[np.object_]) -> NDArray[np.bool_]:
    held = np.zeros(len(labels), np.bool_)
    for label in set(labels):
        held[np.flatnonzero(labels == label)[4::5]] = True
    return held


def _thin(scores: Scores, most: int) -> Scores:
    if len(scores) <= most:
        return scores
    return scores.take(evenly(len(scores), most))


def _counts(components: int) -> list[int]:
    return sorted({*(count for count in _STEPS if count < components), components})


def _predict(halves: Halves, components: int) -> _Predictions:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise SetupError("scikit-learn is not installed: pip install 'mission9[evaluate]'") from error
    fitted, judged = halves.fitted, halves.judged
    few = min(NEIGHBOURS, len(fitted))
    methods = (
        KNeighborsClassifier(1, algorithm="brute"),
        KNeighborsClassifier(few, algorithm="brute"),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    )
    known, asked = fitted.pca[:, :components], judged.pca[:, :components]
    return _Predictions(*(method.fit(known, fitted.labels).predict(asked) for method in methods))


def _accuracy(predicted: _Predictions, labels: NDArray[np.object_], rows: NDArray[np.bool_] | slice) -> Accuracy:
    right = [
        float((said[rows] == labels[rows]).mean())
        for said in (predicted.nearest, predicted.neighbours, predicted.logistic)
    ]
    return Accuracy(len(labels[rows]), *(round(share, 4) for share in right))


def _confusion(labels: NDArray[np.object_], predicted: NDArray[np.object_]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for label, said in zip(labels, predicted, strict=True):
        row = found.setdefault(label, {})
        row[said] = row.get(said, 0) + 1
    return {label: dict(sorted(found[label].items())) for label in sorted(found)}


def as_text(found: Evaluation) -> Iterator[str]:
    """The evaluation as text, line by line."""
    yield f"{found.judged:,} images of {found.judged_on}, classified from {found.fitted:,} of {found.fitted_on}"
    if found.thinned:
        yield "(thinned out evenly: there are more)"
    yield ""
    heads = ("1-NN", f"{NEIGHBOURS}-NN", "logistic")
    yield from _lines("components", heads, [(f"{count:,}", found.curve[count]) for count in found.curve])
    yield ""
    yield from _lines("label", heads, [*found.per_label.items(), ("all", found.overall)])
    if found.unseen:
        yield (
            f"not judged: {found.not_judged:,} images of labels that {found.fitted_on} does not have: "
            f"{', '.join(found.unseen)}"
        )


def _lines(what: str, heads: Sequence[str], rows: Sequence[tuple[str, Accuracy]]) -> Iterator[str]:
    width = max(len(what), *(len(name) for name, _ in rows))
    yield f"{what:<{width}}{'images':>9}" + "".join(f"{head:>10}" for head in heads)
    for name, row in rows:
        shares = (row.nearest, row.neighbours, row.logistic)
        yield f"{name:<{width}}{row.images:>9,}" + "".join(f"{share:>10.1%}" for share in shares)
