"""Which GPU, if any: what Spark gave this task, then the environment, then the CPU."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import TaskContext

# Either exists where a driver does, the second under WSL2; asking is cheaper than importing torch.
_DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))


def has_cuda() -> bool:
    """Whether torch can compute on a GPU here."""
    return not why_no_cuda()


def why_no_cuda() -> str:
    """What keeps torch from a GPU, in words; empty when nothing does."""
    if os.environ.get("NVIDIA_VISIBLE_DEVICES", "all") in ("", "none", "void"):
        return "NVIDIA_VISIBLE_DEVICES hides every GPU"
    if not any(path.exists() for path in _DRIVER_FILES):
        return "no NVIDIA driver is loaded (see nvidia-smi)"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: pip install 'mission9[torch]'"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for the CPU alone; install a build for your CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} was built for CUDA {torch.version.cuda}, and finds no GPU that suits it"
    return ""


def gpus_here() -> int:
    """How many GPUs this process may use."""
    import torch

    count: int = torch.cuda.device_count()
    return len(_listed_devices(count)) or count


def cuda_index() -> int:
    """The index of the GPU for this process: the address that Spark assigned, else one of the visible ones.

    Where Spark schedules no GPUs, tasks share the visible ones by their partition's number.
    """
    import torch

    count: int = torch.cuda.device_count()
    visible = _listed_devices(count) or list(range(count))
    task = _spark_task()
    if task is None:
        return visible[0]
    resources = task.resources()
    if "gpu" in resources:
        return int(resources["gpu"].addresses[0])
    return visible[task.partitionId() % len(visible)]


def _listed_devices(count: int) -> list[int]:
    """The GPUs that NVIDIA_VISIBLE_DEVICES lists, where it lists indices that exist.

    In a container the runtime has applied the list already and numbered the GPUs anew; a list that does not fit
    the GPUs there are is such a one.
    """
    listed = os.environ.get("NVIDIA_VISIBLE_DEVICES", "all").split(",")
    indices = [int(item) for item in listed if item.strip().isdigit()]
    return indices if len(indices) == len(listed) and all(index < count for index in indices) else []


def _spark_task() -> TaskContext | None:
    if "pyspark" not in sys.modules:
        return None
    from pyspark import TaskContext

    return TaskContext.get()
