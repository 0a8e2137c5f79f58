"""Features from OpenVINO on the CPU, with one thread and a few images at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import platformdirs
from numpy.typing import NDArray

from mission9.concurrency.watchdog import progress
from mission9.errors import SetupError
from mission9.models.engines.base import Images, as_array
from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.models.preprocess import INPUT_CHANNELS
from mission9.storage.local.files import write_atomic
from mission9.storage.local.untrusted import read_json

# Small batches stay in a core's L2 cache. A probe tries these sizes in this order, as long as its time allows.
MICRO_BATCHES = (2, 1, 4, 8)
PROBE_SECONDS = 2.0
_PROBE_IMAGES = 16

_HINTS = {"float32": "f32", "int8": "f32", "bfloat16": "bf16"}

Infer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class OpenVINOEngine:
    """N times (224, 224, 4) uint8 -> (N, 1280) float32, on `threads` threads (0: all cores).

    `graph` takes one image or any number at a time. Without `batch_size`, a probe finds the fastest size on this
    machine, once.

    Raises:
        SetupError: the CPU does not compute in `precision`.
    """

    def __init__(self, graph: ov.Model, *, threads: int, batch_size: int | None, precision: str = "float32") -> None:
        self._graph = graph
        self._threads = threads
        self._precision = precision
        self._core = ov.Core()
        self.batch_size, self._compiled = self._fixed(batch_size) if batch_size else self._fastest()

    def __call__(self, images: Images) -> NDArray[np.float32]:
        steps = range(0, len(images), self.batch_size)
        features = [self._infer(as_array(images[at : at + self.batch_size])) for at in steps]
        return np.concatenate(features)

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        missing = self.batch_size - len(images)
        if missing:  # the graph has a fixed batch size, which is faster than a dynamic one
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        result: NDArray[np.float32] = self._compiled(images)[0]
        progress()
        return result[: len(result) - missing].copy()

    def _fixed(self, batch_size: int) -> tuple[int, ov.CompiledModel]:
        self._graph.reshape([batch_size, INPUT_SIZE, INPUT_SIZE, INPUT_CHANNELS])
        hint = _HINTS[self._precision]
        compiled = self._core.compile_model(
            self._graph,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": str(self._threads),
                # Pinning would put the one thread of every worker process on the same core.
                "ENABLE_CPU_PINNING": "NO",
                # On CPUs with bfloat16, OpenVINO uses it by default; on others it silently uses float32.
                "INFERENCE_PRECISION_HINT": hint,
            },
        )
        if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != hint:
            check_bfloat16()
        return batch_size, compiled

    def _fastest(self) -> tuple[int, ov.CompiledModel]:
        """The micro-batch recorded for this machine, else the fastest of those that the probe has time to try."""
        device = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        machine = f"{device} / openvino {ov.__version__} / {self._precision} / {self._threads} threads"
        noted = _read_notes().get(machine)
        if noted in MICRO_BATCHES:
            return self._fixed(noted)
        tried: list[tuple[float, int, ov.CompiledModel]] = []
        start = time.monotonic()
        for batch_size in MICRO_BATCHES:
            # Each size takes about as long as an earlier one.
            if tried and (time.monotonic() - start) * (len(tried) + 1) / len(tried) > PROBE_SECONDS:
                break
            _, compiled = self._fixed(batch_size)
            tried.append((_seconds_an_image(compiled, batch_size), batch_size, compiled))
        _, batch_size, compiled = min(tried, key=lambda trial: trial[0])
        _write_notes(_read_notes() | {machine: batch_size})
        return batch_size, compiled


def check_bfloat16() -> None:
    """Refuse a CPU without bfloat16 arithmetic, on which OpenVINO would silently compute in float32.

    Raises:
        SetupError: this machine has such a CPU.
    """
    core = ov.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise SetupError(
            f"this CPU ({core.get_property('CPU', 'FULL_DEVICE_NAME')}) has no arithmetic in bfloat16: take "
            "--precision float32 or int8, or --engine torch, which emulates it slowly"
        )


def _seconds_an_image(compiled: ov.CompiledModel, batch_size: int) -> float:
    """The seconds per image in the fastest of a few passes after the first: other work can only slow a pass."""
    images = np.full((batch_size, INPUT_SIZE, INPUT_SIZE, INPUT_CHANNELS), 128, np.uint8)
    compiled(images)
    seconds = []
    for _ in range(max(2, _PROBE_IMAGES // batch_size)):
        start = time.perf_counter()
        compiled(images)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / batch_size


def _notes_file() -> Path:
    return platformdirs.user_cache_path("mission9") / "micro-batches.json"


def _read_notes() -> dict[str, int]:
    try:
        notes = read_json(_notes_file())
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _write_notes(notes: dict[str, int]) -> None:
    try:
        _notes_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_notes_file(), json.dumps(notes, indent=1).encode())
    except OSError:  # without a writable home, each process probes for itself
        pass
