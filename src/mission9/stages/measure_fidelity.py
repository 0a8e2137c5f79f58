"""Compare features in a low precision, or of fast decoding, with the exact ones, on a sample of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mission9.decoding.pixels import pixels_digest
from mission9.models.extraction import Extraction
from mission9.sampling import evenly
from mission9.schema import NO_SPLIT, vectors
from mission9.sources.base import Root
from mission9.stages.collect_shards import Rows
from mission9.stages.infer_features import infer_features
from mission9.stages.prepare_images import ImageRow

SAMPLE = 200
_ROW_GROUPS = 8  # the sample comes from these, so that a large table is not read as a whole
_BATCH = 4  # fixed, to save the search for the best size


@dataclass(frozen=True)
class Fidelity:
    """Cosines to the exact features in float32, and the shares of images whose nearest neighbour has their label."""

    images: int
    cosine_mean: float
    cosine_min: float
    accuracy_1nn: float
    accuracy_1nn_float32: float


def measure_fidelity(features: Mapping[str, Sequence[Rows]], root: Root, extraction: Extraction) -> dict[str, float]:
    """`Fidelity` on at most 200 images, the same in each call; empty if none of them can be read any more."""
    paths, labels, low = _sample([rows for split in features.values() for rows in split])
    engine = replace(extraction.engine, precision="float32", batch_size=_BATCH)
    exact = replace(extraction, engine=engine, int8=None, decode="exact", pixels=pixels_digest())
    images = (ImageRow(path, NO_SPLIT, str(label), 0, root) for path, label in zip(paths, labels, strict=True))
    outcomes = list(infer_features(images, exact, threads=0))
    good = np.concatenate([batch["features"].is_valid().to_numpy(zero_copy_only=False) for batch in outcomes])
    if not good.any():  # none of them can be read any more
        return {}
    high = np.concatenate([vectors(kept) for batch in outcomes if len(kept := batch["features"].drop_null())])
    low, labels = low[good], labels[good]
    cosines = (low * high).sum(1) / (np.linalg.norm(low, axis=1) * np.linalg.norm(high, axis=1))
    found = Fidelity(
        images=len(high),
        cosine_mean=round(float(cosines.mean()), 6),
        cosine_min=round(float(cosines.min()), 6),
        accuracy_1nn=_accuracy_1nn(low, labels),
        accuracy_1nn_float32=_accuracy_1nn(high, labels),
    )
    return asdict(found)


def fidelity_in(report: Mapping[str, Any]) -> dict[str, float] | None:
    """An earlier `Fidelity` in a `run.json`; None if it is absent, or not as mission9 wrote it."""
    found, names = report.get("fidelity"), {"cosine_mean", "cosine_min"}
    if isinstance(found, dict) and names < found.keys() and all(isinstance(n, int | float) for n in found.values()):
        return found
    return None


def _sample(groups: Sequence[Rows]) -> tuple[list[str], NDArray[np.str_], NDArray[np.float32]]:
    """Paths, labels and features of images, spaced evenly over a few row groups."""
    chosen = [groups[at] for at in evenly(len(groups), _ROW_GROUPS)]
    tables = [rows.read(["path", "label", "features"]) for rows in chosen]
    taken = [table.take(evenly(len(table), SAMPLE // len(tables))) for table in tables]
    paths = [path for table in taken for path in table["path"].to_pylist()]
    labels = np.array([label for table in taken for label in table["label"].to_pylist()])
    return paths, labels, np.concatenate([vectors(table["features"]) for table in taken])


def _accuracy_1nn(features: NDArray[np.float32], labels: NDArray[np.str_]) -> float:
    """Leave-one-out accuracy of the nearest neighbour by Euclidean distance."""
    rows = features.astype(np.float64)
    squares = (rows**2).sum(1)
    distances = squares[:, np.newaxis] + squares - 2 * rows @ rows.T
    np.fill_diagonal(distances, np.inf)
    return round(float((labels[distances.argmin(1)] == labels).mean()), 4)
