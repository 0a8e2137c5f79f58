"""Vectors that a network gives for images -> rows of features, or rejects."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mission9.decoding.pixels import pixels_digest
from mission9.models.engines import choose_engine
from mission9.models.extraction import Extraction
from mission9.models.weights import Weights
from mission9.options import MAX_BYTES, MAX_PIXELS
from mission9.schema import FEATURES
from mission9.stages.infer_features import infer_features
from mission9.stages.prepare_images import ImageRow, Pixels


class OneBadNumber:
    """An engine whose second vector has one number that is none, among others that are."""

    batch_size = 4

    def __init__(self, bad: float) -> None:
        self._bad = bad

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        vectors = np.ones((len(images), FEATURES), np.float32)
        vectors[1, 7] = self._bad
        return vectors


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_single_number_that_is_not_finite_costs_its_image_alone(
    bad: float, pictures: list[bytes], demo_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.stages.infer_features.make_engine", lambda *_, **__: OneBadNumber(bad))
    extraction = Extraction(
        engine=choose_engine(device="cpu"),
        weights=demo_weights,
        preprocess="stretch",
        max_pixels=MAX_PIXELS,
        max_bytes=MAX_BYTES,
        pixels=pixels_digest(),
    )
    rows = [ImageRow(f"{n}.jpg", "all", "a", 1, content=pictures[n]) for n in range(3)]
    table = pa.Table.from_batches(infer_features(rows, extraction))
    assert table["reason"].to_pylist() == [None, "non_finite_features", None]
    assert table["features"].is_valid().to_pylist() == [True, False, True]
