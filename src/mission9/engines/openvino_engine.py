"""Features by OpenVINO on the CPU, from a graph built of the weights themselves: no torch, no conversion step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op

from mission9.mobilenet_v2 import BLOCKS, INPUT_SIZE, NORM_EPSILON, Conv
from mission9.preprocess import MEAN, STD

# Small batches stay in a core's L2 cache; 2 was the fastest of 1, 2, 4, 8, 16 on one and on two threads.
MICRO_BATCH = 2


class OpenVINOEngine:
    """(N, 224, 224, 3) uint8 -> (N, 1280) float32, on `threads` threads (0: all cores)."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]], *, threads: int, batch_size: int | None) -> None:
        self.batch_size = batch_size or MICRO_BATCH
        self._compiled = ov.Core().compile_model(
            _graph(tensors, self.batch_size),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": str(threads),
                # Pinning would put the one thread of every worker process on the same core.
                "ENABLE_CPU_PINNING": "NO",
                # On CPUs with bfloat16, OpenVINO takes it unless told otherwise.
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = [self._infer(images[at : at + self.batch_size]) for at in range(0, len(images), self.batch_size)]
        return np.concatenate(features)

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        missing = self.batch_size - len(images)
        if missing:  # the graph has one fixed batch size, which is faster than a free one
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        result: NDArray[np.float32] = self._compiled(np.ascontiguousarray(images))[0]
        return result[: len(result) - missing].copy()


def _graph(tensors: Mapping[str, NDArray[np.float32]], batch: int) -> ov.Model:
    images = op.parameter([batch, INPUT_SIZE, INPUT_SIZE, 3], np.uint8, name="images")
    x = _normalised(images)
    for block in BLOCKS:
        y = x
        for conv in block.convs:
            y = _convolution(y, conv, tensors)
        x = op.add(x, y) if block.residual else y
    pooled = op.reduce_mean(x, np.array([2, 3]), keep_dims=False)
    return ov.Model([pooled], [images], "mobilenet_v2_features")


def _normalised(images: ov.Node) -> ov.Node:
    """(pixel / 255 - mean) / std, channels first."""
    mean = np.array(MEAN, np.float32).reshape(1, 1, 1, 3) * 255
    std = np.array(STD, np.float32).reshape(1, 1, 1, 3) * 255
    x = op.divide(op.subtract(op.convert(images, np.float32), mean), std)
    return op.transpose(x, np.array([0, 3, 1, 2]))


def _convolution(x: ov.Node, conv: Conv, tensors: Mapping[str, NDArray[np.float32]]) -> ov.Node:
    weight, bias = _folded(conv, tensors)
    strides, padding = [conv.stride, conv.stride], [conv.padding, conv.padding]
    if conv.groups == 1:
        y = op.convolution(x, weight, strides, padding, padding, [1, 1])
    else:
        grouped = weight.reshape(conv.groups, conv.outputs // conv.groups, *weight.shape[1:])
        y = op.group_convolution(x, grouped, strides, padding, padding, [1, 1])
    y = op.add(y, bias.reshape(1, -1, 1, 1))
    return y if conv.linear else op.clamp(y, 0.0, 6.0)


def _folded(conv: Conv, tensors: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The batch norm folded into the convolution: weight and bias, computed in float64."""
    gamma, beta, mean, variance = (
        tensors[f"{conv.norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + NORM_EPSILON)
    weight = tensors[f"{conv.name}.weight"] * scale.reshape(-1, 1, 1, 1)
    return weight.astype(np.float32), (beta - mean * scale).astype(np.float32)
