"""The parts of the benchmark, in the order they run: each has a name, measures, and tells its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.measure.sitting import Sitting
from benchmarks.report import render_part

Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part: `run` measures and returns the figures of a section; a part that `is_long` runs only when named.

    `section` is the key of the figures in benchmarks/results/figures.json, and the template in benchmarks/pages.
    """

    name: str
    section: str
    run: Callable[[Sitting], Figures]
    is_long: bool = False

    def render(self, figures: Figures) -> str:
        return render_part(self.section, {self.section: figures})
