"""Principal components from moments: one pass over any number of rows, in float64.

Moments are additive: workers can compute parts anywhere, the driver can merge them in any order, and a saved model can
accept more rows later. Names, shapes and signs are those of `sklearn.decomposition.PCA`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mission9.errors import ConfigError, ModelError
from mission9.storage.local.files import make_folder, write_atomic
from mission9.storage.local.untrusted import MIB, read_file, read_json, read_tensors

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

BLOCK_ROWS = 2048  # 20 MB of float64 at 1280 features: large enough for BLAS, small enough for a worker
FORMAT = 1
_ARRAYS_FILE, _FACTS_FILE = "pca.safetensors", "pca.json"
_MAX_BYTES = 64 * MIB  # of the arrays; those of 1280 features take 26 MB


@dataclass(frozen=True)
class Moments:
    """Count (int), mean (d,) and centred scatter (d, d) of rows; the scatter is n times the covariance."""

    count: int
    mean: Floats
    scatter: Floats

    @staticmethod
    def empty(features: int) -> Moments:
        return Moments(0, np.zeros(features), np.zeros((features, features)))

    @staticmethod
    def of(rows: NDArray[Any]) -> Moments:
        """The moments of (n, d) rows, centred first and therefore exact even if the mean dwarfs the deviations."""
        block = np.asarray(rows, np.float64)
        if not len(block):
            return Moments.empty(block.shape[1])
        mean = block.mean(0)
        centred = block - mean
        return Moments(len(block), mean, centred.T @ centred)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of rows together (Chan, Golub, LeVeque 1979, eq. 2.1 for matrices)."""
        if not self.count or not other.count:
            return other if not self.count else self
        count = self.count + other.count
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, self.mean + shift * (other.count / count), scatter)

    def subtract(self, other: Moments) -> Moments:
        """The moments of these rows without those of `other`, a subset of them: the inverse of `merge`."""
        count = self.count - other.count
        if not other.count or count < 1:
            return self if not other.count else Moments.empty(len(self.mean))
        mean = self.mean + (self.mean - other.mean) * (other.count / count)
        shift = other.mean - mean
        scatter = self.scatter - other.scatter - np.outer(shift, shift) * (count * other.count / self.count)
        return Moments(count, mean, scatter)

    def to_bytes(self) -> bytes:
        return safetensors.numpy.save(
            {"count": np.array([self.count]), "mean": self.mean, "scatter": np.ascontiguousarray(self.scatter)}
        )

    @staticmethod
    def from_bytes(data: bytes) -> Moments:
        arrays = safetensors.numpy.load(data)
        return Moments(int(arrays["count"][0]), arrays["mean"], arrays["scatter"])


def moments_of(blocks: Iterable[NDArray[Any]], features: int) -> Moments:
    """The moments of all rows in an iterable of (n, d) arrays."""
    total = Moments.empty(features)
    for block in blocks:
        for start in range(0, len(block), BLOCK_ROWS):
            total = total.merge(Moments.of(block[start : start + BLOCK_ROWS]))
    return total


@dataclass(frozen=True, kw_only=True)
class PCAModel:
    """A fitted PCA: (n, d) rows -> (n, k) scores, centred, as in scikit-learn.

    Attributes:
        components_: (k, d) orthonormal rows, largest variance first; the largest entry of each is positive.
        mean_: (d,) the mean that `transform` subtracts.
        explained_variance_: (k,) with n - 1 in the denominator.
        explained_variance_ratio_: (k,) shares of the total variance; zeros if there is no variance.
        moments: moments of the rows that the model was fitted on; of no rows, if the run used an existing model.
        whiten: True if `transform` divides by the standard deviations.
        facts: metadata (weights, preprocessing, fingerprint), saved as JSON.
    """

    components_: Floats
    mean_: Floats
    explained_variance_: Floats
    explained_variance_ratio_: Floats
    moments: Moments
    whiten: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_components_(self) -> int:
        return len(self.components_)

    @property
    def n_samples_(self) -> int:
        return self.moments.count

    def transform(self, rows: NDArray[Any], *, centre: bool = True) -> Floats:
        """Project (n, d) rows to (n, k) float64 scores. `centre=False` follows Spark ML, which subtracts no mean."""
        block = np.asarray(rows, np.float64)
        scores = ((block - self.mean_) if centre else block) @ self.components_.T
        if self.whiten:
            scores /= np.maximum(np.sqrt(self.explained_variance_), np.finfo(np.float64).eps)  # as in scikit-learn
        return np.asarray(scores)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the mean, components and variances, in hex; the moments do not affect it."""
        digest = hashlib.sha256()
        for array in (self.mean_, self.components_, self.explained_variance_):
            digest.update(np.ascontiguousarray(array, "<f8").tobytes())
        return digest.hexdigest()

    def without_moments(self) -> PCAModel:
        """The same model without its 13 MB of moments, for workers and other outputs: `transform` does not need them.

        Anyone with the moments could compute a row that is erased later.
        """
        return replace(self, moments=Moments.empty(0))

    def inverse_transform(self, scores: NDArray[Any]) -> Floats:
        """Map (n, k) scores to the nearest (n, d) rows that the components can express."""
        block = np.asarray(scores, np.float64)
        if self.whiten:
            block = block * np.sqrt(self.explained_variance_)
        return np.asarray(block @ self.components_ + self.mean_)

    def save(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write the model into `folder`, as safetensors and JSON.

        The JSON includes `facts`, by default the model's own, and `load` restores them.
        """
        folder = Path(folder)
        make_folder(folder)
        arrays = {
            "components": np.ascontiguousarray(self.components_),
            "mean": self.mean_,
            "explained_variance": self.explained_variance_,
            "explained_variance_ratio": self.explained_variance_ratio_,
        }
        if self.n_samples_:
            arrays["scatter"] = np.ascontiguousarray(self.moments.scatter)
        data = safetensors.numpy.save(arrays)
        write_atomic(folder / _ARRAYS_FILE, data)
        saved = {
            "format": FORMAT,
            "n_components": self.n_components_,
            "n_samples": self.n_samples_,
            "n_features": len(self.mean_),
            "whiten": self.whiten,
            "sha256": hashlib.sha256(data).hexdigest(),
            **(self.facts if facts is None else facts),
        }
        write_atomic(folder / _FACTS_FILE, (json.dumps(saved, indent=2, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path, *, features: int | None = None) -> PCAModel:
        """Load the model that `save` wrote; it must have `features` features, if given.

        Raises:
            ModelError: the model is missing, damaged, or of a version that this code does not know.
        """
        folder = Path(folder)
        try:
            facts = read_json(folder / _FACTS_FILE)
            data = read_file(folder / _ARRAYS_FILE, _MAX_BYTES)
            if facts.pop("format") != FORMAT:
                raise ModelError(f"{folder} holds a PCA model of another version of mission9; run again to refit it")
            if facts.pop("sha256") != hashlib.sha256(data).hexdigest():
                raise ModelError(f"the PCA model in {folder} is damaged: {_ARRAYS_FILE} is not as saved; run again")
            arrays, samples = read_tensors(data), facts.pop("n_samples")
            _check_arrays(arrays, samples, features)
            return cls(
                components_=arrays["components"],
                mean_=arrays["mean"],
                explained_variance_=arrays["explained_variance"],
                explained_variance_ratio_=arrays["explained_variance_ratio"],
                moments=Moments(samples, arrays["mean"], arrays["scatter"]) if samples else Moments.empty(0),
                whiten=facts.pop("whiten"),
                facts=facts,
            )
        except FileNotFoundError as error:
            raise ModelError(f"there is no PCA model in {folder} (a run writes OUTPUT/pca_model)") from error
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise ModelError(f"the PCA model in {folder} is damaged: {error}; run again") from error


def _check_arrays(arrays: Mapping[str, NDArray[Any]], samples: object, wanted: int | None) -> None:
    """Refuse arrays that `save` cannot have written.

    Raises:
        ValueError, KeyError: with the reason.
    """
    components, features = arrays["components"].shape
    shapes = {
        "components": (components, features),
        "mean": (features,),
        "explained_variance": (components,),
        "explained_variance_ratio": (components,),
    }
    if samples:
        shapes["scatter"] = (features, features)
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
            raise ValueError(f"{name} is not {shape} finite numbers")
    if not isinstance(samples, int) or samples < 0 or features != (wanted or features):
        raise ValueError(f"it is of {samples} rows of {features} features")


def check_components(n_components: int | float, samples: int, features: int) -> None:
    """Refuse a number of components that `samples` rows of `features` numbers cannot give.

    Raises:
        ConfigError: with the largest possible number.
    """
    if samples < 2:
        raise ConfigError(f"a PCA needs at least 2 images to fit on, and there is {samples or 'none'}: add some")
    most = min(samples, features)
    if isinstance(n_components, Integral) and not isinstance(n_components, bool):
        if not 1 <= n_components <= most:
            raise ConfigError(f"{n_components} components of {samples} images: give 1 to {most}, or a share like 0.95")
    elif not isinstance(n_components, Real) or isinstance(n_components, bool) or not 0 < n_components < 1:
        raise ConfigError(f"{n_components} components: give 1 to {most}, or a share of variance between 0 and 1")


def fit(moments: Moments, n_components: int | float, *, whiten: bool = False) -> PCAModel:
    """Fit a PCA to the rows behind `moments`.

    `n_components` is the number of components, or the share of variance (in (0, 1)) that they must exceed, as in
    scikit-learn. Signs are those of scikit-learn's `svd_flip` on the components.

    Raises:
        ConfigError: the number of components is not possible.
    """
    features = len(moments.mean)
    check_components(n_components, moments.count, features)
    covariance = moments.scatter / (moments.count - 1)
    total = float(np.trace(covariance))
    most = int(n_components) if isinstance(n_components, Integral) else min(moments.count, features)
    variance, components = _largest_eigenpairs(covariance, most, rank=moments.count - 1)
    ratio = variance / total if total > 0 else np.zeros_like(variance)
    k = most
    if not isinstance(n_components, Integral):
        if not total > 0:
            raise ConfigError("the images are all the same: there is no variance to keep a share of; add others")
        k = _components_for(ratio, float(n_components))
    _warn_beyond_rank(variance[:k], features)
    components = components[:k]
    largest = np.abs(components).argmax(1)
    components = components * np.where(components[np.arange(k), largest] < 0, -1.0, 1.0)[:, None]
    return PCAModel(
        components_=components,
        mean_=moments.mean,
        explained_variance_=variance[:k],
        explained_variance_ratio_=ratio[:k],
        moments=moments,
        whiten=whiten,
    )


def _largest_eigenpairs(covariance: Floats, count: int, *, rank: int) -> tuple[Floats, Floats]:
    """(count,) eigenvalues, largest first, and (count, d) eigenvectors of a matrix of rank `rank` at most."""
    from scipy.linalg import eigh, svd  # imports in a tenth of a second, only in the process that fits

    last = len(covariance) - 1
    # More threads make OpenBLAS slower here, and much slower if another process is busy.
    with threadpool_limits(1, user_api="blas"):
        if count <= rank <= len(covariance) // 5:  # a seventh of the time for 64 rows
            vectors, lengths, _ = svd(_factor(covariance, rank), full_matrices=False)
            return lengths[:count] ** 2, vectors.T[:count]
        # A few of many eigenpairs take a third of the time of all.
        values, vectors = eigh(covariance, subset_by_index=[last + 1 - count, last])
    return np.maximum(values[::-1], 0.0), np.asarray(vectors.T[::-1])


def _factor(covariance: Floats, rank: int) -> Floats:
    """The (d, rank) factor whose product with its transpose is the matrix, by Cholesky with complete pivoting.

    Its backward error is of the order of rounding, as that of an eigendecomposition (Higham, "Accuracy and Stability of
    Numerical Algorithms", 2002, theorem 10.14).
    """
    from scipy.linalg.lapack import dpstrf

    factor, order, found, _ = dpstrf(covariance, tol=0.0, lower=1)
    columns: Floats = np.tril(factor)[:, :rank]
    columns[:, found:] = 0.0  # LAPACK does not compute these columns
    whole = np.empty_like(columns)
    whole[order - 1] = columns
    return whole


def _components_for(ratio: Floats, share: float) -> int:
    return min(int(np.searchsorted(np.cumsum(ratio), share, side="right")) + 1, len(ratio))


def _warn_beyond_rank(variance: Floats, features: int) -> None:
    rank = int((variance > variance[0] * features * np.finfo(np.float64).eps).sum())
    if len(variance) > rank:
        logger.warning("the images span %d dimensions: components beyond explain nothing", rank)
