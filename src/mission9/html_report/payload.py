"""Convert the findings of the report to JSON for the page's scripts."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mission9.html_report.neighbour_accuracy import Judgement
from mission9.html_report.tables import MAX_MATRIX, Findings, in_order
from mission9.html_report.text import shown as as_text
from mission9.html_report.thumbnails import ACROSS, SIDE

MAX_COMPONENTS = 50  # that can be chosen for an axis


def make_payload(found: Findings, shown: pa.Table, distances: NDArray[np.float32]) -> dict[str, Any]:
    """The points of the map with their neighbours and thumbnails, and the data of the charts."""
    labels, of_label = np.unique(shown["label"].to_numpy(), return_inverse=True)
    splits = in_order(set(shown["split"].to_pylist()))
    of_split = np.array([splits.index(split) for split in shown["split"].to_pylist()])
    scores = found.sample.pca[found.sample.shown, :MAX_COMPONENTS]
    thumbnails = found.thumbnails
    return {
        "paths": [as_text(path) for path in shown["path"].to_pylist()],
        "labels": [as_text(label) for label in labels],
        "splits": splits,
        "label": _numbers(of_label, np.uint16),
        "split": _numbers(of_split, np.uint8),
        "components": scores.shape[1],
        "scores": _numbers(scores, np.float32),
        "neighbours": _numbers(found.neighbours, np.uint16),
        "distances": _numbers(distances, np.float32),
        "nearest": found.neighbours.shape[1],
        "variance": found.results.report.explained_variance_ratio,
        "sheets": [base64.b64encode(sheet).decode() for sheet in thumbnails.sheets],
        "sizes": _numbers(thumbnails.sizes, np.uint8),
        "side": SIDE,
        "across": ACROSS,
        "matrix": _matrix(found.judgement),
    }


def _numbers(values: NDArray[Any], kind: type[np.number[Any]]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def _matrix(judgement: Judgement | None) -> dict[str, Any] | None:
    """Labels, and (row, column, images) of each non-zero cell; with many labels, those with the most mistakes."""
    if judgement is None:
        return None
    wrong: dict[str, int] = dict.fromkeys(sorted({label for pair in judgement.pairs for label in pair}), 0)
    for label, predicted, count in judgement.mistakes():
        wrong[label] += count
        wrong[predicted] += count
    labels = sorted(sorted(wrong, key=lambda label: -wrong[label])[:MAX_MATRIX])
    place = {label: number for number, label in enumerate(labels)}
    pairs = sorted((pair, count) for pair, count in judgement.pairs.items() if place.keys() >= set(pair))
    cells = [(place[label], place[predicted], count) for (label, predicted), count in pairs]
    judged = [judgement.by_label().get(label, (0, 0))[1] for label in labels]
    return {"labels": [as_text(label) for label in labels], "cells": cells, "judged": judged}
