"""Convert the findings of the report to the texts of the page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mission9._package import __version__
from mission9.html_report.identical import Group
from mission9.html_report.neighbour_accuracy import NEIGHBOURS, Judgement
from mission9.html_report.sample import Sample
from mission9.html_report.text import setting, shown
from mission9.html_report.thumbnails import Thumbnails
from mission9.output.run_report import Report
from mission9.results.reader import Results
from mission9.schema import SPLITS

MAX_REJECTS = MAX_GROUPS = 100
MAX_LABELS = 500
MAX_MATRIX = 150  # labels on a side: more would be smaller than a pixel on a phone
MAX_ODD = 60
MAX_MISTAKES = 25
MAX_FILES = 6  # shown of a group of identical images


@dataclass(frozen=True)
class Findings:
    """Everything that the page shows; `odd` and `neighbours` are indices among the images shown.

    Without a `judgement`, `why_not_judged` gives the reason.
    """

    results: Results
    sample: Sample
    judgement: Judgement | None
    why_not_judged: str
    odd: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    groups: list[Group]
    thumbnails: Thumbnails


def make_tables(found: Findings, images: pa.Table) -> dict[str, Any]:
    """The variables of the page's template; `images` are those shown."""
    report = found.results.report
    return {
        **_head(found),
        "report": report,
        "run_id": report.run_id,  # empty in earlier results
        "counts": {split: report.splits[split] for split in in_order(report.splits)},
        "total": {"listed": report.listed, "featured": report.featured, "rejected": report.rejected},
        "layout": shown(report.layout),
        "skipped": [(_kind(kind), count) for kind, count in sorted(report.skipped.items())],
        "reasons": report.reasons.most_common(),
        "rejects": _rejects(found.results),
        "variance": report.variance_kept,
        "sample_size": len(images),
        "thinned": _thinned(found, images),
        "thumbnails": found.thumbnails,
        "pseudonyms": bool(report.pseudonyms),
        "judgement": found.judgement,
        "why_not_judged": shown(found.why_not_judged),
        "unseen": shown(", ".join(sorted(found.judgement.unseen))) if found.judgement else "",
        "splits": in_order(found.results.splits),
        **_matrix(found),
        **_labels(found),
        "mistakes": _mistakes(found.judgement),
        "odd": _odd(found, images),
        "odd_total": len(found.odd),
        **_identical(found, images),
        "stages": _stages(report),
        "settings": _settings(report),
    }


def _head(found: Findings) -> dict[str, str]:
    report = found.results.report
    return {
        "name": setting(Path(report.config["input"]).name or found.results.root.name),
        "input": setting(report.config["input"]),
        "output": setting(found.results.root),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
    }


def in_order(splits: Iterable[str]) -> list[str]:
    """Splits in the order of their use: Training first."""
    return sorted(splits, key=SPLITS.index)


def _kind(extension: str) -> str:
    return "without extension" if extension == "(none)" else shown(extension)


def _rejects(results: Results) -> list[dict[str, str]]:
    rows = results.rejects().slice(0, MAX_REJECTS).to_pylist()
    return [{name: shown(row[name]) for name in ("path", "reason", "message")} for row in rows]


def _thinned(found: Findings, images: pa.Table) -> list[tuple[str, int, int]]:
    """Split, number of images shown and of all images, where these differ."""
    there: Counter[str] = Counter()
    for (_, split), count in found.sample.counts.items():
        there[split] += count
    shown_of = Counter(images["split"].to_pylist())
    return [(split, shown_of[split], there[split]) for split in in_order(there) if shown_of[split] < there[split]]


def _labels(found: Findings) -> dict[str, Any]:
    """Images of each label by split, and the share of correct predictions, the worst first."""
    right_of = found.judgement.by_label() if found.judgement else {}
    counts, splits = found.sample.counts, in_order(found.results.splits)

    def share(label: str) -> float:
        right, judged = right_of.get(label, (1, 1))
        return right / judged

    labels = sorted({label for label, _ in counts}, key=lambda label: (share(label), label))
    rows = [
        (shown(label), [counts[label, split] for split in splits], right_of.get(label), share(label))
        for label in labels[:MAX_LABELS]
    ]
    return {"labels": rows, "labels_total": len(labels)}


def _matrix(found: Findings) -> dict[str, Any]:
    """The number of labels in the confusion matrix, and of all labels."""
    if found.judgement is None:
        return {}
    labels = {label for pair in found.judgement.pairs for label in pair}
    return {"matrix_labels": min(len(labels), MAX_MATRIX), "matrix_total": len(labels)}


def _mistakes(judgement: Judgement | None) -> list[tuple[str, str, int, int]]:
    if judgement is None:
        return []
    judged = judgement.by_label()
    most = judgement.mistakes()[:MAX_MISTAKES]
    return [(shown(label), shown(predicted), count, judged[label][1]) for label, predicted, count in most]


def _odd(found: Findings, images: pa.Table) -> list[dict[str, Any]]:
    labels, paths = images["label"].to_numpy(), images["path"].to_numpy()
    rows = []
    for place in found.odd[:MAX_ODD]:
        around = Counter(labels[found.neighbours[place, :NEIGHBOURS]].tolist())
        theirs, count = next(pair for pair in around.most_common() if pair[0] != labels[place])
        said = f"{count} of {around.total()}: {shown(theirs)}"
        rows.append({"place": place, "label": shown(labels[place]), "path": shown(paths[place]), "said": said})
    return rows


def _identical(found: Findings, images: pa.Table) -> dict[str, Any]:
    across = [group for group in found.groups if group.leaks or group.crosses_labels]
    places = {path: place for place, path in enumerate(images["path"].to_pylist())}
    rows = [
        {
            "leaks": group.leaks,
            "labels": group.crosses_labels,
            "files": [shown(path) for path, _, _ in group.files[:MAX_FILES]],
            "more": max(0, len(group.files) - MAX_FILES),
            "place": next((places[path] for path, _, _ in group.files if path in places), None),
        }
        for group in across[:MAX_GROUPS]
    ]
    return {
        "groups": rows,
        "leaks": sum(group.leaks for group in across),
        "across_labels": sum(group.crosses_labels for group in across),
        "groups_total": len(across),
        "within": len(found.groups) - len(across),
    }


def _stages(report: Report) -> list[tuple[str, float, float]]:
    """Stage, seconds, and percentage of the longest stage."""
    most = max(report.seconds.values(), default=0) or 1
    return [(stage.replace("_", " "), seconds, 100 * seconds / most) for stage, seconds in report.seconds.items()]


def _settings(report: Report) -> list[tuple[str, str]]:
    said = {None: "-", True: "yes", False: "no"}
    settings = {
        name: said[value] if value is None or isinstance(value, bool) else value
        for name, value in report.config.items()
    }
    facts = {
        "fingerprint": report.fingerprint,
        "weights' SHA-256": report.weights["sha256"],
        "computed by": ", ".join(f"{value}" for value in report.engine.values() if value),
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    return [(name.replace("_", " "), setting(value)) for name, value in (settings | facts).items()]
