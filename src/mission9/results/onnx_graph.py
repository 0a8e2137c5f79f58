"""Features and PCA as one ONNX graph, for programs without mission9 or Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from mission9.models.engines.folding import fold
from mission9.models.mobilenet_v2 import BLOCKS, INPUT_SIZE, Conv
from mission9.models.preprocess import MEAN, STD
from mission9.pca import PCAModel

_OPSET, _IR_VERSION = 18, 10  # ONNX Runtime has read these since 1.16 and 1.18
IMAGES, SCORES = "images", "scores"


def scores_graph(tensors: Mapping[str, NDArray[np.float32]], model: PCAModel, facts: Mapping[str, str]) -> ModelProto:
    """The graph (n, 224, 224, 3) uint8 RGB -> (n, k) float32 scores; `facts` become the file's metadata."""
    graph = _Graph()
    x = _normalised(graph)
    for block in BLOCKS:
        y = x
        for conv in block.convs:
            y = _convolution(graph, y, conv, tensors)
        x = graph.add("Add", x, y) if block.residual else y
    features = graph.add("ReduceMean", x, graph.constant(np.array([2, 3])), keepdims=0)
    _project(graph, features, model)
    pictures = helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["n", INPUT_SIZE, INPUT_SIZE, len(MEAN)])
    scores = helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["n", model.n_components_])
    made = helper.make_graph(graph.nodes, "mission9", [pictures], [scores], graph.constants)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    helper.set_model_props(proto, dict(facts))
    checker.check_model(proto, full_check=True)
    return proto


class _Graph:
    """Nodes and constants, each named by its number."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def _normalised(graph: _Graph) -> str:
    """The images as (pixel / 255 - mean) / std, channels first."""
    mean, std = (np.array(values, np.float32).reshape(1, 1, 1, -1) * 255 for values in (MEAN, STD))
    pixels = graph.add("Cast", IMAGES, to=TensorProto.FLOAT)
    centred = graph.add("Sub", pixels, graph.constant(mean))
    return graph.add("Transpose", graph.add("Div", centred, graph.constant(std)), perm=[0, 3, 1, 2])


def _convolution(graph: _Graph, x: str, conv: Conv, tensors: Mapping[str, NDArray[np.float32]]) -> str:
    weight, bias = map(graph.constant, fold(conv, tensors))
    strides, pads = [conv.stride] * 2, [conv.padding] * 4
    y = graph.add("Conv", x, weight, bias, strides=strides, pads=pads, group=conv.groups)
    if conv.linear:
        return y
    low, high = (graph.constant(np.array(bound, np.float32)) for bound in (0, 6))
    return graph.add("Clip", y, low, high)


def _project(graph: _Graph, features: str, model: PCAModel) -> None:
    """Add the scores: features @ components - mean @ components, the latter computed in float64."""
    components = model.components_.T
    if model.whiten:
        components = components / np.sqrt(model.explained_variance_)
    offset = model.transform(np.zeros((1, len(model.mean_))))[0]
    matrix, start = graph.constant(components.astype(np.float32)), graph.constant(offset.astype(np.float32))
    graph.add("Gemm", features, matrix, start, output=SCORES)
