"""MobileNetV2 features of single images and small batches, in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mission9.engines import Device, EngineName, Precision, choose_engine, make_engine
from mission9.engines.int8 import Int8Network
from mission9.errors import ImageError
from mission9.network.mobilenet_v2 import FEATURES
from mission9.network.preprocess import Preprocess, to_input
from mission9.network.weights import Weights, load_weights
from mission9.stages.decode_apart import decode_apart
from mission9.stages.decode_image import MAX_PIXELS, to_rgb
from mission9.stages.decoder import DecoderSettings
from mission9.stages.read_bytes import MAX_BYTES, read_bytes

ImageLike = str | Path | bytes | Image.Image | NDArray[np.uint8]


class MobileNetV2Extractor:
    """Images -> 1280 float32 features each.

    `device` is auto, cpu or cuda; `batch_size` is how many images the engine takes a step, by default what suits it;
    `weights` is imagenet, demo, or a .pth or .safetensors file. Features are of float32, or of the network `int8`.

    Raises:
        UsageError: a setting is not possible, or the weights cannot be used.
        SetupError: there is no such device, or a package is not installed.
    """

    def __init__(
        self,
        device: Device = "auto",
        batch_size: int | None = None,
        *,
        weights: str | Weights = "imagenet",
        preprocess: Preprocess = "stretch",
        engine: EngineName = "auto",
        int8: Int8Network | None = None,
    ) -> None:
        self.weights = load_weights(weights) if isinstance(weights, str) else weights
        precision: Precision = "int8" if int8 else "float32"
        self.spec = choose_engine(engine=engine, device=device, precision=precision, batch_size=batch_size)
        self.preprocess = preprocess
        self._engine = make_engine(self.spec, self.weights, threads=0, int8=int8)

    def extract(self, image: ImageLike) -> NDArray[np.float32]:
        """The (1280,) features of a path, encoded bytes, a PIL image or an (H, W, 3) uint8 RGB array.

        Raises:
            ImageError: the image cannot be read or decoded.
        """
        features: NDArray[np.float32] = self.extract_batch([image])[0]
        return features

    def extract_batch(self, images: Iterable[ImageLike]) -> NDArray[np.float32]:
        """The (N, 1280) features of N images, in their order.

        Raises:
            ImageError: an image cannot be read or decoded; the message says which.
        """
        pixels = [self._pixels(image, number) for number, image in enumerate(images)]
        return self._engine(pixels) if pixels else np.empty((0, FEATURES), np.float32)

    def _pixels(self, image: ImageLike, number: int) -> NDArray[np.uint8]:
        try:
            if isinstance(image, Image.Image | np.ndarray):
                return to_input(_picture(image), self.preprocess)
            return self._decoded(image)
        except ImageError as error:
            name = str(image) if isinstance(image, str | Path) else f"image {number}"
            raise ImageError(error.reason, f"{name}: {error}") from error

    def _decoded(self, image: str | Path | bytes) -> NDArray[np.uint8]:
        """The pixels of a file, decoded in a child process as those of a run: it may be anybody's."""
        data = image if isinstance(image, bytes) else read_bytes(os.fsencode(image), max_bytes=MAX_BYTES)
        (found,) = decode_apart([data], DecoderSettings(self.preprocess, MAX_PIXELS))
        if isinstance(found, ImageError):
            raise found
        return found.pixels


def _picture(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError("not_an_image", f"an array must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    return Image.fromarray(image)
