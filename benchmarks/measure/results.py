"""All that a sitting measured, as it is written to JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.measure.engine_loop import Loop
from benchmarks.measure.isolation import Isolation
from benchmarks.measure.machine import Machine
from benchmarks.measure.pca_fit import PcaTimes
from benchmarks.measure.runs import Run

from mission9.storage.local.files import write_atomic

RUNNERS = {"Spark": "spark", "local": "local"}


def ours(runner: str, precision: str = "float32", decode: str = "exact") -> str:
    """Return what a run of ours is called here: Spark, local, Spark int8, local fast."""
    usual = ("float32", "exact")
    return " ".join([runner, *(setting for setting in (precision, decode) if setting not in usual)])


def key(name: str, images: int) -> str:
    """The key of a run among all."""
    return f"{name} {images}"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of images: of the main comparison, the small one, the long one, and further points of the cost curve."""

    many: int
    few: int
    long: int
    curve: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Second:
    """The same command again over unchanged images."""

    command: str
    images: int
    images_inferred: int
    wall: float
    seconds: dict[str, float]

    @property
    def after_start(self) -> float:
        """Seconds in all, without those that Spark took to start."""
        return round(self.wall - self.seconds.get("start", 0.0), 3)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Whole wall time = fixed + per_image x images, by least squares; `worst` is the largest residual, in seconds."""

    points: list[tuple[int, float]]
    fixed: float
    per_image: float
    worst: float


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Two figures of one sitting against each other; `how` says which way round, `goal` what is wanted of `ratio`."""

    figure: str
    unit: str
    ours: float | None
    theirs: float | None
    how: str
    ratio: float | None
    goal: str | None
    met: bool | None
    correctness: str
    reason: str


@dataclass(kw_only=True)
class Result:
    """Everything; `skipped` says of what was not measured why not."""

    machine: Machine
    images: str
    distinct: int
    weights: dict[str, str]
    reference: str
    sizes: Sizes
    runs: dict[str, Run] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    loops: dict[str, Loop] = field(default_factory=dict)
    isolation: Isolation | None = None
    pca: PcaTimes | None = None
    curve: dict[str, Line] = field(default_factory=dict)
    second: Second | None = None
    ratios: list[Ratio] = field(default_factory=list)
    part_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """Runs of ours in float32 that were tried and did not succeed; whatever else is missing has its reason."""
        return [name for name in self.skipped if name.split()[0] in RUNNERS and "int8" not in name]


def curve_of(runs: Iterable[Run]) -> dict[str, Line]:
    """A line for each runner of ours that was measured at two sizes or more."""
    lines = {}
    for name in RUNNERS:
        points = sorted((run.images, run.wall) for run in runs if run.name == name)
        if len(points) > 1:
            lines[name] = line(points)
    return lines


def line(points: list[tuple[int, float]]) -> Line:
    images, walls = np.array(points).T
    slope, fixed = np.polyfit(images, walls, 1)
    worst = np.abs(fixed + slope * images - walls).max()
    return Line(points=points, fixed=float(fixed), per_image=float(slope), worst=float(worst))


def save(value: Any, file: Path) -> None:
    """A dataclass as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(asdict(value), indent=2, ensure_ascii=False) + "\n").encode())
