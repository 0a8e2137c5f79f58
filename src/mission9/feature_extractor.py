"""MobileNetV2 features of single images and small batches, in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mission9 import devices
from mission9.config import RunConfig
from mission9.decoding.decode import to_picture
from mission9.decoding.isolated import decode_apart
from mission9.decoding.protocol import DecoderSettings
from mission9.errors import ImageError
from mission9.models.engines import check_cpu, choose_engine, make_engine
from mission9.models.engines.base import Engine
from mission9.models.engines.int8 import Int8Network
from mission9.models.preprocess import to_input
from mission9.models.weights import Weights, load_weights
from mission9.options import Decode, Device, EngineName, Precision, Preprocess
from mission9.schema import FEATURES
from mission9.storage.local.read_bytes import read_bytes

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]


class MobileNetV2Extractor:
    """An extractor of 1280 float32 features from each image.

    Settings have the names and checks of `RunConfig`. As there, a setting that is not given comes from the environment
    (MISSION9_DEVICE, MISSION9_BATCH_SIZE, MISSION9_WEIGHTS, MISSION9_PREPROCESS, MISSION9_DECODE, MISSION9_ENGINE,
    MISSION9_PRECISION, MISSION9_MAX_PIXELS, MISSION9_MAX_BYTES, MISSION9_CONFIG). `int8` is the network of features in
    that precision.

    An extractor can be pickled, for example for a pandas UDF: it holds settings and weights, and each process creates
    its engine once.

    Raises:
        UsageError: a setting is invalid, or the weights cannot be used.
        SetupError: the device does not exist, or a package is not installed.
    """

    def __init__(
        self,
        device: Device | None = None,
        batch_size: int | None = None,
        *,
        weights: str | Path | Weights | None = None,
        preprocess: Preprocess | None = None,
        decode: Decode | None = None,
        engine: EngineName | None = None,
        precision: Precision | None = None,
        int8: Int8Network | None = None,
    ) -> None:
        given = {
            "device": device,
            "batch_size": batch_size,
            "weights": None if isinstance(weights, Weights) else weights,
            "preprocess": preprocess,
            "decode": decode,
            "engine": engine,
            "precision": "int8" if int8 else precision,
        }
        config = RunConfig(**{name: value for name, value in given.items() if value is not None})
        self.spec = choose_engine(
            engine=config.engine, device=config.device, precision=config.precision, batch_size=config.batch_size
        )
        check_cpu(self.spec)
        self.weights = weights if isinstance(weights, Weights) else load_weights(config.weights)
        self.preprocess, self.decode, self.int8 = config.preprocess, config.decode, int8
        self._limits = config.max_pixels, config.max_bytes
        self._engine()

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
            ImageError: an image cannot be read or decoded; the message identifies it.
        """
        pixels = [self._pixels(image, number) for number, image in enumerate(images)]
        return self._engine()(pixels) if pixels else np.empty((0, FEATURES), np.float32)

    def _engine(self) -> Engine:
        # Spark runs a task, with its own engine, on each core.
        threads = 1 if devices.is_in_spark_task() else 0
        return make_engine(self.spec, self.weights, threads=threads, int8=self.int8)

    def _pixels(self, image: ImageLike, number: int) -> NDArray[np.uint8]:
        try:
            if isinstance(image, Image.Image | np.ndarray):
                return to_input(_picture(image), self.preprocess)
            if isinstance(image, str | Path | bytes | bytearray | memoryview):
                return self._decoded(image)
            kind = type(image).__name__
            raise ImageError("not_an_image", f"give a path, bytes, a PIL image or an array, not {kind}")
        except ImageError as error:
            name = str(image) if isinstance(image, str | Path) else f"image {number}"
            raise ImageError(error.reason, f"{name}: {error}") from error

    def _decoded(self, image: str | Path | bytes | bytearray | memoryview) -> NDArray[np.uint8]:
        """The pixels of a file, decoded in a child process as in a run, since the file is untrusted."""
        max_pixels, max_bytes = self._limits
        data = read_bytes(os.fsencode(image), max_bytes=max_bytes) if isinstance(image, str | Path) else bytes(image)
        (found,) = decode_apart([data], DecoderSettings(self.preprocess, max_pixels, self.decode))
        if isinstance(found, ImageError):
            raise found
        return found.pixels


def _picture(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_picture(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError("not_an_image", f"an array must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    return Image.fromarray(image)
