"""Features by torch, on a GPU or on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from mission9.engines.torch_model import MobileNetV2Features
from mission9.preprocess import MEAN, STD

BATCH_SIZES = {"cpu": 16, "cuda": 256}


class TorchEngine:
    """(N, 224, 224, 3) uint8 -> (N, 1280) float32; pixels travel as uint8 and are normalised on the device.

    `device` is "cpu" or "cuda:<index>"; `threads` is for the CPU, 0 for all cores, and holds for the whole process.
    """

    def __init__(
        self, tensors: Mapping[str, NDArray[np.float32]], *, device: str, threads: int, batch_size: int | None
    ) -> None:
        self._device = torch.device(device)
        self.batch_size = batch_size or BATCH_SIZES[self._device.type]
        torch.set_num_threads(threads or os.cpu_count() or 1)
        model = MobileNetV2Features()
        model.load_tensors({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
        model.fuse()
        self._model = model.to(self._device)
        for parameter in self._model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._mean = 255 * torch.tensor(MEAN, device=self._device).view(1, 3, 1, 1)
        self._std = 255 * torch.tensor(STD, device=self._device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = [self._infer(images[at : at + self.batch_size]) for at in range(0, len(images), self.batch_size)]
        return np.concatenate(features)

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        if self._device.type == "cuda":
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        # Channels last in memory already: the permuted view is what the convolutions like best.
        x = (pixels.permute(0, 3, 1, 2).float() - self._mean) / self._std
        features: NDArray[np.float32] = self._model(x).float().cpu().numpy()
        return features
