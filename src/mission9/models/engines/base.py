"""The port of an engine: pixels go in, features come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mission9.options import Precision

# An array of them all, or one array each.
Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


class Engine(Protocol):
    """N times (224, 224, 4) uint8 RGB -> (N, 1280) float32; `batch_size` images at a time suit it best.

    The fourth byte of each pixel is not looked at.
    """

    batch_size: int

    def __call__(self, images: Images) -> NDArray[np.float32]: ...


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An engine by its settings: small enough to send anywhere, made where it is used."""

    engine: Literal["torch", "openvino"]
    device: Literal["cpu", "cuda"]
    precision: Precision = "float32"  # never the short "bf16"
    batch_size: int | None = None
