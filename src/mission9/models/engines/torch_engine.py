"""Features from torch, on a GPU or on the CPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from mission9.concurrency.watchdog import progress
from mission9.errors import DeviceError, SetupError
from mission9.models.engines.base import Images, as_array
from mission9.models.engines.torch_model import MobileNetV2Features
from mission9.models.preprocess import MEAN, STD
from mission9.schema import FEATURES

logger = logging.getLogger(__name__)

BATCH_SIZES = {"cpu": 16, "cuda": 256}

# Calls without a shortage of memory until a reduced batch size is doubled; each shortage doubles the number itself.
_GROW_AFTER = 8

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Messages of exhausted memory in errors other than torch.OutOfMemoryError: of CUDA; of cuBLAS and cuDNN; of torch, if
# no algorithm of cuDNN finds enough workspace; of the CPU.
_OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "unable to find an engine", "can't allocate memory")


class TorchEngine:
    """N times (224, 224, 4) uint8 -> (N, 1280) float32; pixels travel as uint8, and the device normalises them.

    `device` is "cpu" or "cuda:<index>"; `threads` is for the CPU, 0 for all cores, and applies to the whole process.
    `precision` (float32, bfloat16, float16) is that of the convolutions; normalisation and pooling are in float32.

    If the device lacks memory, the engine halves `batch_size`, and doubles it again after some calls: the memory may
    have been another process's.

    Raises:
        SetupError: on a call, if the device lacks memory for one image.
        DeviceError: on a call, if the GPU fails, after which this process cannot use it.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[np.float32]],
        *,
        device: str,
        threads: int,
        batch_size: int | None,
        precision: str = "float32",
    ) -> None:
        self._device = torch.device(device)
        self._type = _TYPES[precision]
        self.batch_size = self._largest = self._smallest = batch_size or BATCH_SIZES[self._device.type]
        self._fitting, self._grow_after = 0, _GROW_AFTER
        torch.set_num_threads(threads or os.cpu_count() or 1)
        model = MobileNetV2Features()
        model.load_tensors({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
        model.fuse()  # before weights are rounded to the precision
        self._model = model.to(self._device, self._type)
        for parameter in self._model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._mean = 255 * torch.tensor(MEAN, device=self._device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(STD, device=self._device).view(1, 3, 1, 1)

    def __call__(self, images: Images) -> NDArray[np.float32]:
        features = np.empty((len(images), FEATURES), np.float32)
        at, size = 0, self.batch_size
        while at < len(images):
            part = self._infer_if_they_fit(images[at : at + size])
            progress()
            if part is None:
                size = min(size, len(images) - at) // 2
                self._shrink()
            else:
                features[at : at + len(part)] = part
                at += len(part)
        self._grow()
        return features

    def _shrink(self) -> None:
        self.batch_size = max(1, self.batch_size // 2)
        self._fitting, self._grow_after = 0, 2 * self._grow_after

    def _grow(self) -> None:
        if self.batch_size < self._smallest:
            self._smallest = self.batch_size
            logger.warning("%s lacks memory: at most %d images at a time for now", self._device, self.batch_size)
        self._fitting += 1
        if self.batch_size < self._largest and self._fitting >= self._grow_after:
            self.batch_size, self._fitting = min(self._largest, 2 * self.batch_size), 0

    @torch.inference_mode()
    def on_device(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute (N, 224, 224, 4) uint8 -> (N, 1280) float32, both on the engine's device, all N at a time."""
        # The memory is already channels-last: the permuted view has the best layout for convolutions.
        x = (pixels[..., : len(MEAN)].permute(0, 3, 1, 2).float() - self._mean) / self._std
        with _true_float32():
            features: torch.Tensor = self._model(x.to(self._type))
            return features

    def _infer_if_they_fit(self, images: Images) -> NDArray[np.float32] | None:
        """The features; None if the device lacks memory for so many images."""
        try:
            return self._infer(images)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                if isinstance(error, torch.AcceleratorError):
                    why = str(error).partition("\n")[0]
                    raise DeviceError(
                        f"{self._device} failed ({why}): rerun the same command to resume, and check nvidia-smi"
                    ) from error
                raise
            if len(images) == 1:
                why = str(error).partition("\n")[0]
                raise SetupError(f"{self._device} cannot infer even one image at a time: {why}") from error
        # Outside the handler, the error is gone, and with it the tensors in the frames that it kept.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _infer(self, images: Images) -> NDArray[np.float32]:
        pixels = torch.from_numpy(as_array(images))
        if self._device.type == "cuda":
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        features: NDArray[np.float32] = self.on_device(pixels).cpu().numpy()
        return features


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


@contextmanager
def _true_float32() -> Iterator[None]:
    """Compute float32 convolutions in float32: by default, cuDNN uses TF32, with 10 bits instead of 23.

    The settings apply to the whole process; this function restores them for other uses of torch.
    """
    kinds = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined] # made when imported
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
