"""Batch norms folded into the preceding convolutions, for engines that are built from weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mission9.models.mobilenet_v2 import NORM_EPSILON, Conv


def fold(conv: Conv, tensors: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fold the batch norm into the convolution: weight and bias, computed in float64."""
    gamma, beta, mean, variance = (
        tensors[f"{conv.norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + NORM_EPSILON)
    weight = tensors[f"{conv.name}.weight"] * scale.reshape(-1, 1, 1, 1)
    return weight.astype(np.float32), (beta - mean * scale).astype(np.float32)
