"""Choose the engine that turns pixels into features, and create it once in each process."""

from __future__ import annotations

import importlib.util
import sys
from typing import Literal

from mission9 import devices
from mission9.errors import ConfigError, SetupError
from mission9.models.engines.base import Engine, EngineSpec
from mission9.models.engines.int8 import Int8Network
from mission9.models.weights import Weights
from mission9.options import Device, EngineName, Precision

# OpenVINO reports each import to its developers, from a process that every worker would fork. This entry makes the
# reporting package seem absent; a package that is already imported stays.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


_PRECISIONS: dict[tuple[str, str], tuple[Precision, ...]] = {
    ("openvino", "cpu"): ("float32", "bfloat16", "int8"),
    ("torch", "cpu"): ("float32", "bfloat16"),
    ("torch", "cuda"): ("float32", "bfloat16", "float16"),
}


def choose_engine(
    *,
    engine: EngineName = "auto",
    device: Device = "auto",
    precision: Precision = "float32",
    batch_size: int | None = None,
    elsewhere: bool = False,
) -> EngineSpec:
    """Resolve `auto` on this machine; a requested GPU may be `elsewhere`, on the workers' machines.

    Raises:
        SetupError: the engine's package is not installed, or the device does not exist.
        ConfigError: the engine does not run on the device, or not in that precision.
    """
    if device == "auto":
        device = "cuda" if engine != "openvino" and devices.has_cuda() else "cpu"
    if device == "cuda" and engine == "openvino":
        raise ConfigError("openvino computes on the CPU here; for --device cuda take --engine torch or auto")
    if device == "cuda" and not devices.has_cuda():
        if elsewhere and precision == "float32":
            return EngineSpec(engine="torch", device=device, batch_size=batch_size)
        if elsewhere:
            raise ConfigError(
                f"what {precision} costs is measured on this machine, which has no GPU: take --precision float32"
            )
        raise SetupError(f"there is no GPU to use: {devices.why_no_cuda()}; --device auto falls back to the CPU")
    if engine == "auto":
        engine = _installed_for(device)
    if precision == "int8" and not _installed("nncf"):
        raise SetupError("int8 needs nncf: pip install 'mission9[int8]'")
    if not _installed(engine):
        raise SetupError(f"{engine} is not installed: pip install 'mission9[{engine}]'")
    precision = "bfloat16" if precision == "bf16" else precision
    possible = _PRECISIONS[engine, device]
    if precision not in possible:
        raise ConfigError(f"{engine} on {device} computes in {', '.join(possible)}, not in {precision}")
    return EngineSpec(engine=engine, device=device, precision=precision, batch_size=batch_size)


def check_cpu(spec: EngineSpec) -> None:
    """Refuse an engine that this machine's CPU cannot run, before any work starts.

    Raises:
        SetupError: the CPU has no arithmetic in the precision.
    """
    if (spec.engine, spec.precision) == ("openvino", "bfloat16"):
        from mission9.models.engines.openvino_engine import check_bfloat16

        check_bfloat16()


def make_engine(spec: EngineSpec, weights: Weights, *, threads: int, int8: Int8Network | None = None) -> Engine:
    """Create the engine that `spec` describes, or return the one that this process has already created.

    `threads` is for the CPU; 0 means all cores. Workers use 1: one engine per core beats one engine on all cores.
    `int8` is the network of an engine of that precision.

    Raises:
        SetupError: `spec` requires a GPU and there is none, or the CPU does not compute in its precision.
    """
    # Spark may give a worker's next task another GPU.
    device = f"cuda:{devices.cuda_index()}" if spec.device == "cuda" else "cpu"
    key = (spec, int8.sha256 if int8 else weights.sha256, threads, device)
    if key not in _made:
        if spec.engine == "openvino":
            _made[key] = _openvino_engine(spec, weights, threads, int8)
        else:
            from mission9.models.engines.torch_engine import TorchEngine

            _made[key] = TorchEngine(
                weights.tensors(),
                device=device,
                threads=threads,
                batch_size=spec.batch_size,
                precision=spec.precision,
            )
    return _made[key]


_made: dict[tuple[EngineSpec, str, int, str], Engine] = {}


def _openvino_engine(spec: EngineSpec, weights: Weights, threads: int, int8: Int8Network | None) -> Engine:
    from mission9.models.engines.openvino_engine import OpenVINOEngine
    from mission9.models.engines.openvino_graph import features_graph

    if (spec.precision == "int8") != (int8 is not None):
        raise ConfigError("int8 needs a network that was calibrated on images, as mission9 run makes it")
    graph = int8.read() if int8 else features_graph(weights.tensors())
    return OpenVINOEngine(graph, threads=threads, batch_size=spec.batch_size, precision=spec.precision)


def _installed_for(device: Device) -> Literal["openvino", "torch"]:
    """The default engine of a device; on a CPU, the faster of those that are installed.

    Raises:
        SetupError: no engine is installed.
    """
    if device == "cpu" and _installed("openvino"):
        return "openvino"
    if device != "cpu" or _installed("torch"):
        return "torch"
    raise SetupError("no engine is installed: pip install 'mission9[openvino]', or 'mission9[torch]'")


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
