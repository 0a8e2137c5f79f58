"""The network as it is written, to hold engines against."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mission9.datasets.demo import VARIETIES, draw
from mission9.models.engines.torch_model import MobileNetV2Features
from mission9.models.preprocess import MEAN, STD, to_input
from mission9.models.weights import Tensors
from mission9.stages.prepare_images import Pixels


def drawn_pixels(count: int) -> Pixels:
    """Generated pictures as (count, 224, 224, 4) uint8, all different."""
    drawn = (draw(VARIETIES[n % len(VARIETIES)], stream=3, number=n // len(VARIETIES)) for n in range(count))
    return np.stack([to_input(Image.fromarray(picture), "stretch") for picture in drawn])


def features_in_float64(images: Pixels, tensors: Tensors) -> NDArray[np.float64]:
    """(N, 1280) by the network as it is written, batch norms apart, in float64."""
    model = MobileNetV2Features().double().eval()
    model.load_tensors({name: torch.from_numpy(array.astype(np.float64)) for name, array in tensors.items()})
    pixels = (images[..., :3] / 255.0 - np.array(MEAN)) / np.array(STD)
    with torch.inference_mode():
        features: NDArray[np.float64] = model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
        return features
