"""Machine types of a cloud, and their list prices in `data/instances.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from mission9.errors import ConfigError


@dataclass(frozen=True)
class Instance:
    """A machine type; prices are in dollars an hour, EMR's in addition to the machine's."""

    name: str
    vcpus: int
    price: float
    emr: float = 0.0
    gpu: str = ""

    @property
    def cores(self) -> int:
        """The number of physical cores: a vCPU of these types is half a core."""
        return max(1, self.vcpus // 2)


@cache
def _list() -> dict[str, Any]:
    text = (files("mission9") / "data" / "instances.json").read_text("utf-8")
    listed: dict[str, Any] = json.loads(text)
    return listed


def note() -> str:
    """A note on the accuracy of the prices."""
    return str(_list()["note"])


def gpu_rates(gpu: str) -> tuple[float, float]:
    """The assumed lower and upper bounds of a GPU's throughput, in images a second."""
    low, high = _list()["gpu_images_a_second"][gpu]
    return float(low), float(high)


def find_instances(names: Sequence[str], prices: Sequence[str] = ()) -> list[Instance]:
    """The machine types of these names; `prices`, given as `TYPE=USD`, replace those of the list.

    Raises:
        ConfigError: a name or a price is not valid.
    """
    own = dict(_price(text) for text in prices)
    listed = _list()["instances"]
    if unknown := [name for name in (*names, *own) if name not in listed]:
        raise ConfigError(f"the machine type {unknown[0]} is unknown: pass one of {', '.join(listed)}")
    found = [Instance(name, **listed[name]) for name in names]
    return [replace(instance, price=own.get(instance.name, instance.price)) for instance in found]


def _price(text: str) -> tuple[str, float]:
    name, _, price = text.partition("=")
    try:
        value = float(price)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"--price {text} is not valid: pass TYPE=USD in dollars an hour, such as g4dn.xlarge=0.6")
    return name.strip(), value
