"""Machines that a cloud lends, and what they cost by the list that lies in `data/instances.json`."""

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
    """A type of machine; prices are in dollars an hour, EMR's on top of the machine's."""

    name: str
    vcpus: int
    price: float
    emr: float = 0.0
    gpu: str = ""

    @property
    def cores(self) -> int:
        """Return what computes: a vCPU of these types is half a core."""
        return max(1, self.vcpus // 2)


@cache
def _list() -> dict[str, Any]:
    text = (files("mission9") / "data" / "instances.json").read_text("utf-8")
    listed: dict[str, Any] = json.loads(text)
    return listed


def note() -> str:
    """Return how far the prices are to be trusted."""
    return str(_list()["note"])


def gpu_rates(gpu: str) -> tuple[float, float]:
    """Images a second that a GPU computes, at the least and at the most, both assumed."""
    low, high = _list()["gpu_images_a_second"][gpu]
    return float(low), float(high)


def find_instances(names: Sequence[str], prices: Sequence[str] = ()) -> list[Instance]:
    """The machines of these names, with the prices given as `TYPE=USD` in place of the list's.

    Raises:
        ConfigError: a name or a price is not possible.
    """
    own = dict(_price(text) for text in prices)
    listed = _list()["instances"]
    if unknown := [name for name in (*names, *own) if name not in listed]:
        raise ConfigError(f"{unknown[0]} is not in the list of machines; there are: {', '.join(listed)}")
    found = [Instance(name, **listed[name]) for name in names]
    return [replace(instance, price=own.get(instance.name, instance.price)) for instance in found]


def _price(text: str) -> tuple[str, float]:
    name, _, price = text.partition("=")
    try:
        value = float(price)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"--price {text}: give TYPE=USD, the dollars an hour: g4dn.xlarge=0.6")
    return name.strip(), value
