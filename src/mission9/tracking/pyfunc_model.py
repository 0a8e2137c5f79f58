"""The PCA model of a run as an MLflow model: encoded images go in, scores come out.

MLflow stores this file with the model and runs it where the model is loaded, so that nothing is pickled. The package
is stored there too, as an archive.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

if (_modules := Path(__file__).with_name("code") / "mission9.zip").exists():
    sys.path.insert(0, str(_modules))

from mission9.results.projector import Projector

IMAGE, PCA_MODEL = "image", "pca_model"


class ServedModel(PythonModel):
    """Takes a data frame with a column of encoded images (JPEG, PNG, ...), returns the (n, k) float32 scores."""

    def load_context(self, context: PythonModelContext) -> None:
        self._project = Projector(context.artifacts[PCA_MODEL], device="cpu")

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        return np.stack([self._project(bytes(image)) for image in model_input[IMAGE]])


mlflow.models.set_model(ServedModel())
