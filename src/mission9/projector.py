"""New images into the space of a saved PCA model."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mission9.engines import Device, EngineName
from mission9.engines.int8 import Int8Network
from mission9.errors import ModelError
from mission9.feature_extractor import ImageLike, MobileNetV2Extractor
from mission9.network.mobilenet_v2 import FEATURES
from mission9.network.preprocess import Preprocess
from mission9.network.weights import read_saved_weights
from mission9.pca import PCAModel
from mission9.places import model_here


class Projector:
    """Called with an image, gives its (k,) float32 scores in the space of the model saved in a folder, or bucket.

    The model brings its weights and preprocessing along, and the network in int8 if it was made of such features.

    Raises:
        ModelError: there is no model, or it is damaged.
        WeightsError: the weights beside it are damaged.
    """

    def __init__(self, model: str | Path, *, device: Device = "auto", engine: EngineName = "auto") -> None:
        folder = model_here(model)
        self.model = PCAModel.load(folder, features=FEATURES)
        facts = self.model.facts
        try:
            name, sha256, preprocess = facts["weights"]["name"], facts["weights"]["sha256"], facts["preprocess"]
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"the PCA model in {folder} does not say which weights it was made with; run again"
            ) from error
        if preprocess not in get_args(Preprocess):
            raise ModelError(f"the PCA model in {folder} was made with preprocessing that there is not: {preprocess}")
        weights = read_saved_weights(folder, name=name, sha256=sha256)
        int8 = Int8Network.load(folder)
        self._extractor = MobileNetV2Extractor(
            device, weights=weights, preprocess=preprocess, engine=engine, precision="float32", int8=int8
        )

    def __call__(self, image: ImageLike) -> NDArray[np.float32]:
        features = self._extractor.extract(image)
        scores: NDArray[np.float32] = self.model.transform(features[np.newaxis])[0].astype(np.float32)
        return scores
