"""MobileNetV2's features as an OpenVINO graph, built from the weights: without torch, and without a conversion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op

from mission9.models.engines.folding import fold
from mission9.models.mobilenet_v2 import BLOCKS, INPUT_SIZE, Conv
from mission9.models.preprocess import INPUT_CHANNELS, MEAN, STD


def features_graph(tensors: Mapping[str, NDArray[np.float32]], batch: int = 1) -> ov.Model:
    """The graph of (batch, 224, 224, 4) uint8 RGB -> (batch, 1280) float32, including the normalisation.

    The fourth byte of a pixel is an input of the first convolution with weights of 0, which costs nothing. The nodes of
    convolutions have the names of `BLOCKS`.
    """
    images = op.parameter([batch, INPUT_SIZE, INPUT_SIZE, INPUT_CHANNELS], np.uint8, name="images")
    x = _normalised(images)
    for block in BLOCKS:
        y = x
        for conv in block.convs:
            y = _convolution(y, conv, tensors)
        x = op.add(x, y) if block.residual else y
    pooled = op.reduce_mean(x, np.array([2, 3]), keep_dims=False)
    return ov.Model([pooled], [images], "mobilenet_v2_features")


def _normalised(images: ov.Node) -> ov.Node:
    """Normalised pixels, (pixel / 255 - mean) / std, channels first."""
    mean = np.array([*MEAN, 0], np.float32).reshape(1, 1, 1, INPUT_CHANNELS) * 255
    std = np.array([*STD, 1], np.float32).reshape(1, 1, 1, INPUT_CHANNELS) * 255
    x = op.divide(op.subtract(op.convert(images, np.float32), mean), std)
    return op.transpose(x, np.array([0, 3, 1, 2]))


def _convolution(x: ov.Node, conv: Conv, tensors: Mapping[str, NDArray[np.float32]]) -> ov.Node:
    weight, bias = fold(conv, tensors)
    if conv.inputs == len(MEAN):
        weight = np.pad(weight, [(0, 0), (0, INPUT_CHANNELS - conv.inputs), (0, 0), (0, 0)])
    strides, padding = [conv.stride, conv.stride], [conv.padding, conv.padding]
    if conv.groups == 1:
        y = op.convolution(x, weight, strides, padding, padding, [1, 1])
    else:
        grouped = weight.reshape(conv.groups, conv.outputs // conv.groups, *weight.shape[1:])
        y = op.group_convolution(x, grouped, strides, padding, padding, [1, 1])
    y.set_friendly_name(conv.name)
    y = op.add(y, bias.reshape(1, -1, 1, 1))
    return y if conv.linear else op.clamp(y, 0.0, 6.0)
