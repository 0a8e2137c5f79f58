"""Facts that a saved PCA model brings along: what features it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from mission9.errors import ModelError
from mission9.options import Preprocess
from mission9.pca import PCAModel


@dataclass(frozen=True)
class ModelFacts:
    """Weights by their name and SHA-256, preprocessing and precision of the features that a model was made of.

    The precision is empty where the model does not tell it, and nobody needs it.
    """

    weights: str
    weights_sha256: str
    preprocess: Preprocess
    precision: str

    @staticmethod
    def of(model: PCAModel, place: str | Path, *, needs_precision: bool = True) -> ModelFacts:
        """Return what the model in `place` tells.

        Raises:
            ModelError: it does not tell it, or of preprocessing that there is not.
        """
        try:
            weights, preprocess = model.facts["weights"], model.facts["preprocess"]
            engine = model.facts["engine"] if needs_precision else {"precision": "", **model.facts.get("engine", {})}
            found = (weights["name"], weights["sha256"], preprocess, engine["precision"])
        except (KeyError, TypeError) as error:
            raise _untold(place) from error
        if not all(isinstance(text, str) for text in found):
            raise _untold(place)
        if preprocess not in get_args(Preprocess):
            raise ModelError(
                f"the PCA model in {place} was made with preprocessing that there is not: {preprocess}; run again"
            )
        return ModelFacts(*found)


def _untold(place: str | Path) -> ModelError:
    return ModelError(f"the PCA model in {place} does not say what features it was made of: run again")
