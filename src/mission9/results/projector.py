"""Project new images into the space of a saved PCA model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mission9.feature_extractor import ImageLike, MobileNetV2Extractor
from mission9.model_facts import ModelFacts
from mission9.models.engines.int8 import Int8Network
from mission9.models.weights import Weights, read_saved_weights
from mission9.options import Device, EngineName
from mission9.pca import PCAModel
from mission9.results.reader import of_one_model
from mission9.schema import FEATURES


class Projector:
    """Callable that returns an image's (k,) float32 scores in the space of a model, saved in a folder or bucket.

    The folder of the model also holds its weights, its preprocessing, and the int8 network if its features are int8.

    Raises:
        ModelError: there is no model, or it is damaged.
        WeightsError: the weights in the same folder are damaged.
    """

    def __init__(self, model: str | Path, *, device: Device = "auto", engine: EngineName = "auto") -> None:
        self.model, facts, weights, int8 = of_one_model(model, _read)
        self._extractor = MobileNetV2Extractor(
            device,
            weights=weights,
            preprocess=facts.preprocess,
            decode=facts.decode,
            engine=engine,
            precision="float32",
            int8=int8,
        )

    def __call__(self, image: ImageLike) -> NDArray[np.float32]:
        features = self._extractor.extract(image)
        scores: NDArray[np.float32] = self.model.transform(features[np.newaxis])[0].astype(np.float32)
        return scores


def _read(folder: Path) -> tuple[PCAModel, ModelFacts, Weights, Int8Network | None]:
    """The whole content of a model's folder."""
    model = PCAModel.load(folder, features=FEATURES)
    facts = ModelFacts.of(model, folder, needs_precision=False)
    weights = read_saved_weights(folder, name=facts.weights, sha256=facts.weights_sha256)
    return model, facts, weights, Int8Network.load(folder) if facts.precision in ("int8", "") else None
