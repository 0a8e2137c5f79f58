"""The PCA alone, of the same features: ours and Spark ML's from the same Parquet files, scikit-learn's in memory.

    python -m benchmarks.measure.pca_fit FEATURES COMPONENTS REPEATS [--no-spark]

Spark ML runs in a warm session, which was started without mission9's settings for a fast start. Ours runs in this
process, as a run fits up to 10,000 rows. All are fitted on all rows.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from benchmarks.measure.child import run_module
from benchmarks.measure.machine import cores_here
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from mission9.config import RunConfig
from mission9.runners.base import InProcessRunner
from mission9.schema import vectors
from mission9.stages.collect_shards import Rows
from mission9.stages.fit_pca import fit_pca

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Floats = NDArray[np.float64]
# Fits once, and gives (k, d) components.
Fit = Callable[[], Floats]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Seconds of each fit, their median, and how far the components lie from scikit-learn's in float64.

    `angle` is the largest principal angle between the two spaces, in radians; `difference` the largest of any number in
    the components, up to sign.
    """

    seconds: list[float]
    median: float
    angle: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class PcaTimes:
    """The fits by name: `ours`, `spark_ml` where there is Spark, `sklearn` in float64, `sklearn_float32`."""

    rows: int
    components: int
    repeats: int
    fits: dict[str, Fitted]


def pca_times(features: Path, components: int, *, repeats: int, with_spark: bool) -> PcaTimes:
    """Measured in a process of its own."""
    told = run_module("pca_fit", str(features), str(components), str(repeats), *(() if with_spark else ("--no-spark",)))
    fits = {name: Fitted(**fitted) for name, fitted in told.pop("fits").items()}
    return PcaTimes(**told, fits=fits)


def main() -> None:
    folder, components, repeats = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with_spark = "--no-spark" not in sys.argv
    features = vectors(pq.read_table(folder, columns=["features"])["features"])
    with ExitStack() as stack:
        fits = {"sklearn_float32": in_memory(features, components)}
        fits["sklearn"] = in_memory(features.astype(np.float64), components)
        if with_spark:
            session = stack.enter_context(spark_session())
            fits |= {"spark_ml": by_spark_ml(session, folder, components)}
        fits["ours"] = by_us(folder, components)
        right = fits["sklearn"]()
        times = {name: measure(fit, right, repeats) for name, fit in fits.items()}
    told = PcaTimes(rows=len(features), components=components, repeats=repeats, fits=times)
    print(json.dumps(asdict(told)))


def measure(fit: Fit, right: Floats, repeats: int) -> Fitted:
    """Timed after a first fit, which is not counted."""
    found = fit()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        fit()
        seconds.append(time.perf_counter() - start)
    angle, difference = distance(found, right)
    return Fitted(seconds=seconds, median=median(seconds), angle=angle, difference=difference)


def distance(found: Floats, right: Floats) -> tuple[float, float]:
    """The largest principal angle between two (k, d) sets of orthonormal rows, and their largest difference."""
    outside = float(np.linalg.norm(right - (right @ found.T) @ found, 2))
    angle = float(np.arcsin(min(1.0, outside)))
    signs = np.where((found * right).sum(1) < 0, -1.0, 1.0)[:, np.newaxis]
    return angle, float(np.abs(found * signs - right).max())


def in_memory(rows: NDArray[Any], components: int) -> Fit:
    def fit() -> Floats:
        return np.asarray(PCA(components, svd_solver="covariance_eigh").fit(rows).components_, np.float64)

    return fit


def by_us(folder: Path, components: int) -> Fit:
    files = sorted(folder.glob("*.parquet"))
    rows = [Rows(file, group) for file in files for group in range(pq.read_metadata(file).num_row_groups)]
    return lambda: fit_pca(InProcessRunner(), rows, components).components_


def by_spark_ml(spark: SparkSession, folder: Path, components: int) -> Fit:
    from pyspark.ml.feature import PCA as SparkPCA  # noqa: N811 (scikit-learn's is PCA here)
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql.functions import col

    def fit() -> Floats:
        rows = spark.read.parquet(str(folder)).select(array_to_vector(col("features")).alias("v"))
        model = SparkPCA(k=components, inputCol="v", outputCol="pca").fit(rows)
        return np.asarray(model.pc.toArray().T, np.float64)

    return fit


def spark_session() -> SparkSession:
    from mission9.runners.spark_session import start_session

    return start_session(RunConfig(master=f"local[{cores_here()}]"))


if __name__ == "__main__":
    main()
