"""Choose the GPU, if any: that of Spark's task, then the environment's, then none; and count the cores that feed it."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mission9.errors import SetupError

if TYPE_CHECKING:
    from pyspark import TaskContext

# Set in each worker process of a run without Spark, to its number from 0. The underscore keeps it from being taken for
# a setting of the user's.
WORKER_VARIABLE = "_MISSION9_WORKER"

# Either exists where a driver does, the second under WSL2; asking is cheaper than importing torch.
_DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))


def has_cuda() -> bool:
    """Tell whether torch can compute on a GPU here."""
    return not why_no_cuda()


def why_no_cuda() -> str:
    """Return what keeps torch from a GPU, in words; empty when nothing does."""
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
    """Return how many GPUs this process may use."""
    import torch

    count: int = torch.cuda.device_count()
    return len(_listed_devices(count)) or count


def workers_here(device: str) -> int:
    """Return how many tasks this machine runs at a time: one a GPU, or one a core that this process may use."""
    import loky

    if device == "cuda" or (device == "auto" and has_cuda()):
        return gpus_here()
    return int(loky.cpu_count())


def cuda_index() -> int:
    """The GPU for this process, as torch counts them: the one that Spark assigned, else one of the visible ones.

    Where Spark schedules no GPUs, or there is no Spark, workers share the visible ones by their number.

    Raises:
        SetupError: no GPU is visible here, though there was one where the run was started.
    """
    visible = _visible_devices()
    if not visible:
        raise SetupError(
            f"there is no GPU on {socket.gethostname()}: {why_no_cuda() or 'torch sees none'}; "
            "--device cpu does without"
        )
    assigned = _assigned_device()
    return visible[_worker_number(os.getpid()) % len(visible)] if assigned is None else assigned


def decode_threads() -> int:
    """Return how many threads decode images for this process's GPU: as many as it has cores, and at least 2.

    Those are the cores that Spark gave the task if more than one, else an equal part of this machine's for each GPU.
    """
    task = _spark_task()
    if task is not None and task.cpus() > 1:
        return task.cpus()
    return max(2, len(os.sched_getaffinity(0)) // max(1, len(_visible_devices())))


def _visible_devices() -> list[int]:
    import torch

    count: int = torch.cuda.device_count()
    return _listed_devices(count) or list(range(count))


def _assigned_device() -> int | None:
    """The GPU that Spark assigned to this task; None where it assigned none, or none that torch counts.

    Addresses are the machine's numbers. CUDA_VISIBLE_DEVICES lists those that torch counts from 0; in containers, and
    where a cluster manager isolates GPUs otherwise, those that are left may be numbered anew without it.
    """
    import torch

    task = _spark_task()
    resources = {} if task is None else task.resources()
    if "gpu" not in resources:
        return None
    address = resources["gpu"].addresses[0].strip()
    listed = [item.strip() for item in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    index = listed.index(address) if address in listed else int(address) if address.isdigit() else -1
    return index if 0 <= index < torch.cuda.device_count() else None


@cache
def _worker_number(process: int) -> int:  # noqa: ARG001 - a forked worker must not take its parent's
    """Tells this process from others that share the GPUs; kept, so that a worker's later tasks stay on its GPU."""
    task = _spark_task()
    return int(os.environ.get(WORKER_VARIABLE, "0")) if task is None else task.partitionId()


def _listed_devices(count: int) -> list[int]:
    """The GPUs that NVIDIA_VISIBLE_DEVICES lists, where it lists indices that exist.

    In a container the runtime has applied the list already and numbered the GPUs anew; a list that does not fit
    the GPUs there are is such a one.
    """
    listed = os.environ.get("NVIDIA_VISIBLE_DEVICES", "all").split(",")
    indices = [int(item) for item in listed if item.strip().isdigit()]
    return indices if len(indices) == len(listed) and all(index < count for index in indices) else []


def is_in_spark_task() -> bool:
    """Tell whether this process carries out a task of Spark's."""
    return _spark_task() is not None


def _spark_task() -> TaskContext | None:
    if sys.modules.get("pyspark") is None:  # not imported, or kept from being
        return None
    from pyspark import TaskContext

    return TaskContext.get()
