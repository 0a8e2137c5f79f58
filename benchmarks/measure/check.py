"""Checks of results: rows, features against a reference, scores against scikit-learn's on the same features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.measure.reference import Reference
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from mission9.schema import TRAINING, vectors

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Check:
    """The correctness of a result.

    `rows` images have features and scores; `whole` when that is every one of `images`, once. `cosine_min` and
    `relative_error_max` are those of the `compared` features against the reference. `pca_difference` is that of the
    worst column of scores, its difference's length over its own, up to sign, against scikit-learn's PCA fitted on the
    features that the program itself wrote; a shift of a whole column does not count, since Spark ML subtracts no mean.
    """

    rows: int
    images: int
    whole: bool
    compared: int
    cosine_min: float | None
    relative_error_max: float | None
    components: int
    pca_difference: float

    def __str__(self) -> str:
        cosine = (
            "cosine not compared" if self.cosine_min is None else f"cosine {self.cosine_min:.6f} of {self.compared}"
        )
        rows = f"rows {self.rows:,}/{self.images:,}{'' if self.whole else ' WRONG'}"
        return f"{cosine}, PCA {self.pca_difference:.0e}, {rows}"


@dataclass(frozen=True)
class Table:
    """Vectors by the path of their image, relative to the folder of images."""

    paths: list[str]
    rows: Floats

    def at(self, paths: list[str]) -> Floats:
        place = {path: at for at, path in enumerate(self.paths)}
        return self.rows[[place[path] for path in paths]]


def check_ours(output: Path, images: int, reference: Reference) -> Check:
    table = pq.read_table(output / "features", columns=["path", "split", "features"])
    features = Table(table["path"].to_pylist(), vectors(table["features"]).astype(np.float64))
    scores = [pq.read_table(folder, columns=["path", "pca"]) for folder in sorted(output.glob("*_pca"))]
    paths = [path for part in scores for path in part["path"].to_pylist()]
    found = Table(paths, np.concatenate([vectors(part["pca"]) for part in scores]).astype(np.float64))
    is_fitted = np.array([split in (TRAINING, "all") for split in table["split"].to_pylist()])
    return _check(features, found, features.rows[is_fitted], images, reference)


def check_peer(output: Path, tree: Path, images: int, reference: Reference) -> Check:
    """Peers write absolute paths, and fit on all images."""
    features = _read_peer(output, "features", tree)
    return _check(features, _read_peer(output, "pca", tree), features.rows, images, reference)


def _check(features: Table, scores: Table, fitted: Floats, images: int, reference: Reference) -> Check:
    known = set(features.paths)
    distinct = len(known & set(scores.paths))
    components = scores.rows.shape[1]
    model = PCA(components, svd_solver="covariance_eigh").fit(fitted)
    right = model.transform(features.at(scores.paths))
    compared = sorted(known & reference.keys())
    cosine, error = _distance(features.at(compared), [reference[path] for path in compared])
    return Check(
        rows=distinct,
        images=images,
        whole=distinct == images == len(features.paths) == len(scores.paths),
        compared=len(compared),
        cosine_min=cosine,
        relative_error_max=error,
        components=components,
        pca_difference=_worst_column(scores.rows, right),
    )


def _distance(found: Floats, wanted: list[Floats]) -> tuple[float | None, float | None]:
    if not wanted:
        return None, None
    right = np.stack(wanted)
    lengths = np.linalg.norm(right, axis=1)
    cosines = (found * right).sum(1) / (np.linalg.norm(found, axis=1) * lengths)
    return float(cosines.min()), float((np.linalg.norm(found - right, axis=1) / lengths).max())


def _worst_column(found: Floats, right: Floats) -> float:
    found, right = found - found.mean(0), right - right.mean(0)
    found = found * np.where((found * right).sum(0) < 0, -1.0, 1.0)
    return float((np.linalg.norm(found - right, axis=0) / np.linalg.norm(right, axis=0)).max())


def _read_peer(output: Path, name: str, tree: Path) -> Table:
    place = output / name if (output / name).exists() else output / f"{name}.parquet"
    table = pq.read_table(place, columns=["path", name])
    paths = [path.partition(f"{tree}/")[2] for path in table["path"].to_pylist()]
    return Table(paths, _numbers(table[name]).astype(np.float64))


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float32]:
    column = column.combine_chunks()
    if pa.types.is_struct(column.type):  # Spark ML's vectors
        column = column.field("values")
    return vectors(column)
