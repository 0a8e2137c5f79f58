"""Facts of the machine, without which a figure means nothing."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mission9.output.run_report import versions

_PACKAGES = (
    "mission9", "numpy", "openvino", "pandas", "pillow", "pyarrow", "pyspark", "scikit-learn", "torch", "ray", "daft",
)  # fmt: skip
# Instructions that the speed of a network depends on.
_FLAGS = re.compile(r"avx$|avx2|avx512|avx_vnni|fma$|f16c|amx|bf16|fp16|asimd|sve|i8mm")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine, the system and the packages; memory in bytes."""

    cpu: str
    cores: int
    flags: list[str]
    memory: int
    system: str
    python: str
    packages: dict[str, str]
    date: str
    load: float = field(metadata={"note": "other work on the machine, in processes, when measuring began"})


def this_machine() -> Machine:
    found = versions(_PACKAGES)
    return Machine(
        cpu=_of_cpu("model name") or platform.processor() or platform.machine(),
        cores=cores_here(),
        flags=sorted(flag for flag in _of_cpu("flags").split() if _FLAGS.match(flag)),
        memory=psutil.virtual_memory().total,
        system=f"{_distribution()}, {platform.system()} {platform.release()}",
        python=found.pop("python"),
        packages=found,
        date=time.strftime("%Y-%m-%d"),
        load=round(os.getloadavg()[0], 2),
    )


def cores_here() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _of_cpu(key: str) -> str:
    facts = Path("/proc/cpuinfo")
    found = re.search(rf"^{key}\s*:\s*(.*)$", facts.read_text(), re.MULTILINE) if facts.exists() else None
    return found[1].strip() if found else ""


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown distribution"
