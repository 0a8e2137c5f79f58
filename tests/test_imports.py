from __future__ import annotations

import subprocess
import sys


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_costs_neither_torch_nor_spark() -> None:
    loaded = modules_after("import mission9")
    assert not loaded & {"torch", "pyspark", "openvino", "pandas", "numpy", "pyarrow"}


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    assert not modules_after("import mission9.cli") & {"torch", "pyspark", "openvino", "pandas"}


def test_the_worker_needs_no_torch_with_openvino() -> None:
    loaded = modules_after(
        "from mission9.stages import extract_shard; from mission9.engines import EngineSpec, make_engine;"
        "from mission9.weights import load_weights;"
        "make_engine(EngineSpec(engine='openvino', device='cpu'), load_weights('demo'), threads=1)"
    )
    assert "openvino" in loaded
    assert not loaded & {"torch", "pyspark"}
