"""MobileNetV2 in int8: OpenVINO's graph, quantized by NNCF on a sample of the images of the run."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from mission9.errors import ModelError, SetupError
from mission9.models.mobilenet_v2 import BLOCKS, INPUT_SIZE
from mission9.models.preprocess import INPUT_CHANNELS
from mission9.models.weights import Weights
from mission9.schema import FEATURES
from mission9.storage.local.files import make_folder, write_atomic
from mission9.storage.local.untrusted import MIB, read_file

if TYPE_CHECKING:
    import openvino as ov

CALIBRATION_IMAGES = 256

# These stay in float32: docs/explanation/precision.md has the measurements.
FLOAT_CONVOLUTIONS = tuple(conv.name for block in BLOCKS[:2] for conv in block.convs)

_GRAPH, _CONSTANTS, _DIGEST = "int8.xml", "int8.bin", "int8.sha256"

# A network may come with another person's model, so these limits apply. MobileNetV2's graph takes 0.3 MB and its
# constants 2.4 MB; its operations are those below, and none gives more than 1.2 million numbers for an image.
_MAX_GRAPH_BYTES, _MAX_CONSTANTS_BYTES, _MAX_NUMBERS = 8 * MIB, 64 * MIB, 1 << 22
_OPERATIONS = frozenset({
    "Add", "Clamp", "Constant", "Convert", "Convolution", "Divide", "FakeQuantize", "GroupConvolution", "Multiply",
    "Parameter", "ReduceMean", "Relu", "Reshape", "Result", "Squeeze", "Subtract", "Transpose", "Unsqueeze",
})  # fmt: skip


@dataclass(frozen=True)
class Int8Network:
    """A quantized graph: OpenVINO's two files as bytes, which can travel to the workers."""

    graph: bytes
    constants: bytes
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.graph + self.constants).hexdigest())

    def save(self, folder: Path) -> None:
        make_folder(folder)
        write_atomic(folder / _GRAPH, self.graph)
        write_atomic(folder / _CONSTANTS, self.constants)
        write_atomic(folder / _DIGEST, self.sha256.encode())

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The network that `save` wrote; None if there is none.

        Raises:
            ModelError: the files differ from the saved ones.
        """
        if not (folder / _DIGEST).exists():
            return None
        with suppress(FileNotFoundError, ValueError):
            graph = read_file(folder / _GRAPH, _MAX_GRAPH_BYTES)
            network = cls(graph, read_file(folder / _CONSTANTS, _MAX_CONSTANTS_BYTES))
            if network.sha256.encode() == read_file(folder / _DIGEST, MIB):
                return network
        raise ModelError(f"the int8 network in {folder} is damaged: delete that folder to calibrate again")

    def read(self) -> ov.Model:
        """The network as an OpenVINO graph.

        Raises:
            ModelError: the network is unreadable, or computes anything but an image's features.
        """
        import openvino as ov

        try:
            graph = ov.Core().read_model(self.graph, self.constants)
            outputs = [output for operation in graph.get_ops() for output in operation.outputs()]
            numbers = max((math.prod(output.get_shape()) for output in outputs), default=0)
            ends = [list(end.get_shape()) for end in (*graph.inputs, *graph.outputs)]
        except RuntimeError as error:  # OpenVINO's error for any failure, of many lines
            raise ModelError("the int8 network is damaged: OpenVINO cannot read it") from error
        strange = {operation.get_type_name() for operation in graph.get_ops()} - _OPERATIONS
        wanted = [[1, INPUT_SIZE, INPUT_SIZE, INPUT_CHANNELS], [1, FEATURES]]
        if strange or numbers > _MAX_NUMBERS or ends != wanted:
            raise ModelError("the int8 network is not MobileNetV2's: it is refused, and was not run")
        return graph


def calibrate(weights: Weights, images: NDArray[np.uint8], scratch: Path | None = None) -> Int8Network:
    """Quantize the network; the (N, 224, 224, 4) uint8 images determine the ranges of activations.

    Temporary files are in `scratch` during the call.

    Raises:
        SetupError: nncf is not installed.
    """
    import openvino as ov

    from mission9.models.engines.openvino_graph import features_graph

    model = quantize(features_graph(weights.tensors()), images)
    with tempfile.TemporaryDirectory(prefix="mission9-", dir=scratch) as folder:
        ov.save_model(model, Path(folder) / _GRAPH, compress_to_fp16=False)
        return Int8Network((Path(folder) / _GRAPH).read_bytes(), (Path(folder) / _CONSTANTS).read_bytes())


def quantize(
    graph: ov.Model, images: NDArray[np.uint8], *, floats: Sequence[str] = FLOAT_CONVOLUTIONS, **options: Any
) -> ov.Model:
    """The graph in int8, except for the convolutions in `floats`; `options` are those of NNCF.

    Raises:
        SetupError: nncf is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # keeps NNCF from reporting its use to its developers
    try:
        import nncf
    except ImportError as error:
        raise SetupError("int8 needs nncf: pip install 'mission9[int8]'") from error

    nncf.set_log_level(logging.ERROR)
    defaults = {
        # MIXED preserves the signs of activations, which this network's linear bottlenecks have.
        "preset": nncf.QuantizationPreset.MIXED,
        "ignored_scope": nncf.IgnoredScope(names=list(floats)),
        # Bias correction takes seconds, and beside these floats hardly changes the features.
        "advanced_parameters": nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    }
    sample = nncf.Dataset(list(images[:, np.newaxis]))
    return nncf.quantize(graph, sample, subset_size=len(images), **(defaults | options))
