"""Results in the formats of scikit-learn, Spark ML and ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mission9.errors import ConfigError, ModelError, SetupError
from mission9.model_facts import ModelFacts
from mission9.models.weights import Weights, read_saved_weights
from mission9.pca import PCAModel
from mission9.results.reader import of_one_model
from mission9.storage.local.files import write_atomic

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from sklearn.decomposition import PCA


def to_sklearn(model: PCAModel) -> PCA:
    """The model as a fitted `sklearn.decomposition.PCA`, in float64.

    Raises:
        SetupError: scikit-learn is not installed.
        ModelError: the model has no moments, because its run received it by `--pca-model`.
    """
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise SetupError("scikit-learn is not installed: pip install 'mission9[evaluate]'") from error
    samples, features = model.n_samples_, len(model.mean_)
    if not samples:
        raise ModelError(
            "the PCA model has no count of images, which scikit-learn needs: give the model of the run that fitted "
            "it, not of one with --pca-model"
        )
    found = PCA(model.n_components_, whiten=model.whiten)
    found.components_, found.mean_ = model.components_.copy(), model.mean_.copy()
    found.explained_variance_ = model.explained_variance_.copy()
    found.explained_variance_ratio_ = model.explained_variance_ratio_.copy()
    found.singular_values_ = np.sqrt(model.explained_variance_ * (samples - 1))
    found.n_components_, found.n_samples_, found.n_features_in_ = model.n_components_, samples, features
    left = min(samples, features) - model.n_components_
    total = float(np.trace(model.moments.scatter)) / (samples - 1)
    # The mean of the omitted variances, as in scikit-learn's probabilistic PCA (Bishop 2006, 12.46).
    found.noise_variance_ = (total - float(model.explained_variance_.sum())) / left if left else 0.0
    return found


def with_vectors(table: DataFrame, *columns: str) -> DataFrame:
    """A Spark DataFrame with its array columns (`features`, `pca`) converted to the vectors of Spark ML."""
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql.functions import col

    return table.withColumns({name: array_to_vector(col(name).cast("array<double>")) for name in columns})


def export_onnx(folder: str | Path, file: str | Path) -> None:
    """Write the model in a folder pca_model as one ONNX graph: (n, 224, 224, 3) uint8 RGB -> (n, k) scores.

    The graph expects upright RGB pictures, resized by the model's `preprocess` (named in the file's metadata).

    Raises:
        SetupError: onnx is not installed.
        ModelError, WeightsError: there is no model, or it is damaged.
        ConfigError: the model was made of features in a low precision, but the graph computes in float32.
    """
    try:
        from mission9.results.onnx_graph import scores_graph
    except ImportError as error:
        raise SetupError("onnx is not installed: pip install 'mission9[onnx]'") from error
    file = Path(file)
    model, facts, weights = of_one_model(folder, _read)
    names = {"preprocess": facts.preprocess, "weights": facts.weights, "weights_sha256": facts.weights_sha256}
    write_atomic(file, scores_graph(weights.tensors(), model, names).SerializeToString())


def _read(folder: Path) -> tuple[PCAModel, ModelFacts, Weights]:
    model = PCAModel.load(folder)
    facts = ModelFacts.of(model, folder)
    if facts.precision != "float32":
        raise ConfigError(
            f"the model in {folder} was made of features in {facts.precision}, and the graph computes in float32: run "
            "again with --precision float32"
        )
    return model, facts, read_saved_weights(folder, name=facts.weights, sha256=facts.weights_sha256)
