"""The facts in a saved PCA model about the features that it was fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from mission9.errors import ModelError
from mission9.options import Decode, Preprocess
from mission9.pca import PCAModel


@dataclass(frozen=True)
class ModelFacts:
    """Weights by name and SHA-256, preprocessing, precision and decoding of the features of a model.

    The precision is empty if the model does not record it and the caller does not need it.
    """

    weights: str
    weights_sha256: str
    preprocess: Preprocess
    precision: str
    decode: Decode

    @staticmethod
    def of(model: PCAModel, place: str | Path, *, needs_precision: bool = True) -> ModelFacts:
        """The facts of the model in `place`.

        Raises:
            ModelError: a fact is missing, or the preprocessing is unknown.
        """
        try:
            weights, preprocess = model.facts["weights"], model.facts["preprocess"]
            engine = model.facts["engine"] if needs_precision else {"precision": "", **model.facts.get("engine", {})}
            found = (weights["name"], weights["sha256"], preprocess, engine["precision"])
            decode = model.facts.get("decode", "exact")
        except (KeyError, TypeError) as error:
            raise _untold(place) from error
        if not all(isinstance(text, str) for text in found):
            raise _untold(place)
        for value, known in ((preprocess, Preprocess), (decode, Decode)):
            if value not in get_args(known):
                raise ModelError(
                    f"the PCA model in {place} was made with preprocessing that there is not: {value}; run again"
                )
        return ModelFacts(*found, decode)


def _untold(place: str | Path) -> ModelError:
    return ModelError(f"the PCA model in {place} does not say what features it was made of: run again")
