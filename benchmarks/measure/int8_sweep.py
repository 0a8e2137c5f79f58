"""The settings of int8: a Markdown table of cosines to float32, rates and sizes.

python -m benchmarks.measure.int8_sweep --images DIR --weights FILE [--only SETTING ...]

A CPU without VNNI adds products of 8 bits in 16 bits, which overflow; so each network is computed a second time, in
arithmetic that does not. Rates are of one thread's CPU time, in turns with the first setting, which mission9 had before
this sweep.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openvino as ov
from nncf import AdvancedQuantizationParameters, OverflowFix, QuantizationPreset
from nncf.quantization.advanced_parameters import (
    AdvancedSmoothQuantParameters,
    QuantizationMode,
    QuantizationParameters,
)
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from numpy.typing import NDArray
from openvino import opset13 as op

from mission9.config import RunConfig
from mission9.models.engines.int8 import quantize
from mission9.models.engines.openvino_engine import OpenVINOEngine
from mission9.models.engines.openvino_graph import features_graph
from mission9.models.mobilenet_v2 import BLOCKS
from mission9.models.weights import Tensors, load_weights
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages.make_extraction import make_extraction
from mission9.stages.prepare_images import ImageRow, Pixels, prepare_ahead

_MOST, _JUDGED = 300, 200  # images to calibrate on at most, and others to compare features of
_BATCH, _TIMED, _TURNS = 8, 32, 15

_CONVS = [conv for block in BLOCKS for conv in block.convs]


@dataclass(frozen=True)
class Setting:
    """Arguments of NNCF's quantize besides mission9's own; `floats` are the convolutions that stay in float32."""

    floats: tuple[str, ...] = ()
    images: int = 128
    options: Mapping[str, Any] = field(default_factory=dict)


def _first(count: int, **options: Any) -> Setting:
    return Setting(tuple(conv.name for conv in _CONVS[:count]), options=options)


def _advanced(**parameters: Any) -> dict[str, Any]:
    return {"advanced_parameters": AdvancedQuantizationParameters(**{"disable_bias_correction": True, **parameters})}


def _settings() -> dict[str, Setting]:
    """Every setting by its name; the first is the one that the others are held against."""
    deep, last = tuple(conv.name for conv in _CONVS if conv.groups > 1), _CONVS[-1].name
    per_channel = QuantizationParameters(per_channel=True)
    asymmetric = QuantizationParameters(mode=QuantizationMode.ASYMMETRIC)
    extremes = RangeEstimatorParametersSet.MINMAX
    outliers = RangeEstimatorParametersSet.MEAN_NO_OUTLIERS_MINMAX
    performance = {"preset": QuantizationPreset.PERFORMANCE}
    return {
        "all in int8, bias correction": Setting(options=_advanced(disable_bias_correction=False)),
        "all in int8, accurate bias correction": Setting(
            images=64, options={"fast_bias_correction": False, **_advanced(disable_bias_correction=False)}
        ),
        "all in int8": Setting(),
        "preset performance": Setting(options=performance),
        "overflow fix everywhere": Setting(options=_advanced(overflow_fix=OverflowFix.ENABLE)),
        "overflow fix nowhere": Setting(options=_advanced(overflow_fix=OverflowFix.DISABLE)),
        "channel alignment": Setting(options=_advanced(disable_channel_alignment=False)),
        "SmoothQuant": Setting(options=_advanced(smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=0.5))),
        "activations per channel": Setting(options=_advanced(activations_quantization_params=per_channel)),
        "weights asymmetric": Setting(options=_advanced(weights_quantization_params=asymmetric)),
        "depthwise in float": Setting(deep),
        "last 1 in float": Setting((last,)),
        **{f"first {count} in float": _first(count) for count in (1, 2, 3, 5, 9)},
        "first 3 in float, bias correction": _first(3, **_advanced(disable_bias_correction=False)),
        **{
            f"first 3 in float, {count} images": Setting(_first(3).floats, count) for count in (32, 64, 200, 256, _MOST)
        },
        "first 3 in float, preset performance": _first(3, **performance),
        "first 3 in float, overflow fix everywhere": _first(3, **_advanced(overflow_fix=OverflowFix.ENABLE)),
        **{
            f"first {count} in float, overflow fix nowhere": _first(
                count, **_advanced(overflow_fix=OverflowFix.DISABLE)
            )
            for count in (1, 2, 3, 5)
        },
        "first 3 in float, all extremes": _first(3, **_advanced(activations_range_estimator_params=extremes)),
        "first 3 in float, ranges without outliers": _first(
            3, **_advanced(activations_range_estimator_params=outliers)
        ),
        "first 3 and last 1 in float": Setting((*_first(3).floats, last)),
        **{
            f"block {number} in float": Setting(tuple(conv.name for conv in block.convs))
            for number, block in enumerate(BLOCKS)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--only", nargs="+", default=list(_settings()), metavar="SETTING")
    given = parser.parse_args()
    pixels, tensors = _decoded(given.images, given.weights), load_weights(given.weights).tensors()
    judged = pixels[-_JUDGED:]
    exact = _engine(features_graph(tensors))(judged)
    settings = _settings()
    before = _engine(_quantized(tensors, pixels, next(iter(settings.values()))))
    print("| setting | mean | smallest | mean, no overflow | smallest, no overflow | rate | MB | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.only:
        start = time.perf_counter()
        try:
            network = _quantized(tensors, pixels, settings[name])
        except Exception as error:  # of NNCF, which refuses some settings with errors of many kinds
            print(f"| {name} | {type(error).__name__} |")
            continue
        seconds = time.perf_counter() - start
        engine = _engine(network.clone())
        cosines = (*_cosines(engine(judged), exact), *_cosines(_engine(_without_overflow(network))(judged), exact))
        figures = " | ".join(f"{cosine:.5f}" for cosine in cosines)
        rate = median(_rate(engine, judged) / _rate(before, judged) for _ in range(_TURNS))
        print(f"| {name} | {figures} | {rate:.2f} | {_megabytes(network):.1f} | {seconds:.0f} |", flush=True)
        gc.collect()


def _decoded(images: str, weights: str) -> Pixels:
    """Decode a sample, in random order and the same each time."""
    extraction = make_extraction(RunConfig(input=images, weights=weights, precision="int8"))
    root = find_root(images)
    listed = [row for batch in list_images(root, ListingCounts()) for row in batch.to_pylist()]
    chosen = np.random.default_rng(0).permutation(len(listed))[: _MOST + _JUDGED]
    rows = [listed[at] for at in chosen]
    given = (ImageRow(row["path"], row["split"], row["label"], row["bytes"], root) for row in rows)
    return np.concatenate([batch.pixels.copy() for batch in prepare_ahead(given, extraction)])


def _quantized(tensors: Tensors, pixels: Pixels, setting: Setting) -> ov.Model:
    images = pixels[: setting.images]
    with redirect_stdout(sys.stderr):  # NNCF's progress
        return quantize(features_graph(tensors), images, floats=setting.floats, **setting.options)


def _engine(graph: ov.Model) -> OpenVINOEngine:
    return OpenVINOEngine(graph, threads=1, batch_size=_BATCH, precision="int8")


def _without_overflow(network: ov.Model) -> ov.Model:
    """Write the rounding of activations as arithmetic in float32, which OpenVINO does not turn into 8 bits."""
    graph = network.clone()
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        x, low, high, least, most = node.input_values()
        steps = np.float32(node.get_attributes()["levels"] - 1)
        inside = op.subtract(op.minimum(op.maximum(x, low), high), low)
        rounded = op.round(op.multiply(op.divide(inside, op.subtract(high, low)), steps), "half_to_even")
        value = op.add(op.multiply(op.divide(rounded, steps), op.subtract(most, least)), least)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(value.output(0))
    graph.validate_nodes_and_infer_types()
    return graph


def _cosines(features: NDArray[np.float32], exact: NDArray[np.float32]) -> tuple[float, float]:
    cosines = (features * exact).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(exact, axis=1)
    return float(cosines.mean()), float(cosines.min())


def _rate(engine: OpenVINOEngine, pixels: Pixels) -> float:
    """Images per second of CPU time: other work on the machine does not count."""
    start = time.process_time()
    engine(pixels[:_TIMED])
    return _TIMED / (time.process_time() - start)


def _megabytes(network: ov.Model) -> float:
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(network, Path(folder) / "network.xml", compress_to_fp16=False)
        return sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6


if __name__ == "__main__":
    main()
