"""The port of an engine: pixels in, features out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mission9.options import Precision

# One array of all images, or one array per image.
Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


def as_array(images: Images) -> NDArray[np.uint8]:
    """The images as one array, which is the given one if it is an array."""
    return images if isinstance(images, np.ndarray) else np.stack(images)


class Engine(Protocol):
    """N times (224, 224, 4) uint8 RGB -> (N, 1280) float32; `batch_size` is the preferred number of images at a time.

    Engines ignore the fourth byte of each pixel.
    """

    batch_size: int

    def __call__(self, images: Images) -> NDArray[np.float32]: ...


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """The settings of an engine, small enough to send anywhere; each process creates its own engine from them."""

    engine: Literal["torch", "openvino"]
    device: Literal["cpu", "cuda"]
    precision: Precision = "float32"  # never the abbreviation "bf16"
    batch_size: int | None = None
