"""Choose the GPU, if any: that of the Spark task, then the environment's, then none. Count the cores that feed it."""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import socket
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mission9.errors import SetupError

if TYPE_CHECKING:
    from pyspark import TaskContext

# Set for each worker process of a run without Spark: how many there are. The underscore distinguishes the variable from
# a user's setting.
WORKERS_VARIABLE = "_MISSION9_WORKERS"

_MAX_CLAIMS = 64  # processes that share a GPU

# Spark's addresses and NVIDIA_VISIBLE_DEVICES count as nvidia-smi does. By default, CUDA begins with the fastest GPU.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def has_cuda() -> bool:
    """True if torch can compute on a GPU here."""
    return not why_no_cuda()


def why_no_cuda() -> str:
    """The reason why torch cannot use a GPU; empty if it can."""
    if os.environ.get("NVIDIA_VISIBLE_DEVICES", "all") in ("", "none", "void"):
        return "NVIDIA_VISIBLE_DEVICES hides every GPU"
    if not _has_driver():
        return "no NVIDIA driver is loaded (see nvidia-smi)"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: pip install 'mission9[torch]'"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for the CPU alone; install a build for your CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} was built for CUDA {torch.version.cuda}, and finds no GPU that suits it"
    return ""


@cache
def _has_driver() -> bool:
    """True if the driver's library can be loaded: sandboxes have it too, and torch takes longer to ask."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def gpus_here() -> int:
    """The number of GPUs that this process may use."""
    import torch

    count: int = torch.cuda.device_count()
    return len(_listed_devices(count)) or count


def workers_here(device: str) -> int:
    """The number of tasks that this machine runs at a time: one per GPU, or per core that this process may use."""
    import loky

    if device == "cuda" or (device == "auto" and has_cuda()):
        return gpus_here()
    return int(loky.cpu_count())


def cuda_index() -> int:
    """The GPU for this process, in torch's numbering: the one that Spark assigned, else one of the visible ones.

    Without Spark, or if Spark schedules no GPUs, a process takes the one that the fewest other processes have taken.

    Raises:
        SetupError: no GPU is visible here, although the machine that started the run has one.
    """
    visible = _visible_devices()
    if not visible:
        raise SetupError(
            f"there is no GPU on {socket.gethostname()}: {why_no_cuda() or 'torch sees none'}; "
            "--device cpu does without"
        )
    assigned = _assigned_device()
    return _claimed(tuple(visible), os.getpid()) if assigned is None else assigned


def decode_threads() -> int:
    """The number of threads that decode images for this process's GPU, at least 2: one per core of the process.

    Its cores are those that Spark gave the task, or an equal part of this machine's: for each GPU if Spark assigned
    one, else for each GPU or each worker process, whichever are more.
    """
    import loky

    task, gpus = _spark_task(), max(1, len(_visible_devices()))
    if task is not None and (task.cpus() > 1 or _assigned_device() is None):
        return max(2, task.cpus())
    sharing = gpus if task is not None else max(gpus, int(os.environ.get(WORKERS_VARIABLE, "1")))
    return max(2, int(loky.cpu_count()) // sharing)


def _visible_devices() -> list[int]:
    import torch

    count: int = torch.cuda.device_count()
    return _listed_devices(count) or list(range(count))


def _assigned_device() -> int | None:
    """The GPU that Spark assigned to this task; None if it assigned none, or none that torch counts.

    Addresses are the machine's numbers. CUDA_VISIBLE_DEVICES lists those that torch counts from 0. Containers, and
    cluster managers that isolate GPUs otherwise, may renumber the remaining GPUs without it.
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
def _claimed(visible: tuple[int, ...], process: int) -> int:
    """The visible GPU with the fewest claims; `process`, which is this one, holds its claim, a lock, until it ends."""
    try:
        folder = _claims_folder()
        names = [quote(name, "") for name in _machine_names(max(visible) + 1)]
        for claims in range(_MAX_CLAIMS):
            for index in visible:
                if _try_lock(folder / f"{names[index]}-{claims}"):
                    return index
    except OSError:  # no folder of this user's is possible here
        pass
    return visible[process % len(visible)]


def _claims_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"mission9-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if (found := folder.lstat()).st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{folder} is another user's, or a link")
    return folder


def _try_lock(path: Path) -> bool:
    """Lock a file until this process ends; return False if another process holds the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    return True


def _machine_names(count: int) -> list[str]:
    """The machine's names of the GPUs that torch counts from 0."""
    listed = [item.strip() for item in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if item.strip()]
    return listed if len(listed) >= count else [str(index) for index in range(count)]


def _listed_devices(count: int) -> list[int]:
    """The GPUs that NVIDIA_VISIBLE_DEVICES lists, if it lists indices that exist.

    In a container, the runtime has already applied the list and renumbered the GPUs; a list that does not match the
    existing GPUs is of that kind.
    """
    listed = os.environ.get("NVIDIA_VISIBLE_DEVICES", "all").split(",")
    indices = [int(item) for item in listed if item.strip().isdigit()]
    return indices if len(indices) == len(listed) and all(index < count for index in indices) else []


def is_in_spark_task() -> bool:
    """True if this process runs a Spark task."""
    return _spark_task() is not None


def _spark_task() -> TaskContext | None:
    if sys.modules.get("pyspark") is None:  # not imported, or blocked from import
        return None
    from pyspark import TaskContext

    return TaskContext.get()
