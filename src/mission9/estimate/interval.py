"""A number that is not known exactly: the least, the likeliest and the most that it may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """Bounds of a positive number, and what lies between."""

    low: float
    mid: float
    high: float

    @staticmethod
    def of_mean(values: Sequence[float]) -> Interval:
        """The mean that was measured, and where the true one lies in 95 of 100 cases."""
        from scipy.stats import t

        mean = float(np.mean(values))
        if len(values) < 2:
            return Interval(mean / 2, mean, mean * 2)
        error = float(np.std(values, ddof=1)) / len(values) ** 0.5
        half = float(t.ppf(0.975, len(values) - 1)) * error
        return Interval(max(mean - half, mean / 2), mean, mean + half)

    def plus(self, other: Interval) -> Interval:
        """The sum of two."""
        return Interval(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def times(self, factor: float) -> Interval:
        """Each of the three, multiplied."""
        return Interval(self.low * factor, self.mid * factor, self.high * factor)

    def over(self, other: Interval) -> Interval:
        """The quotient of two that do not depend on one another."""
        return Interval(self.low / other.high, self.mid / other.mid, self.high / other.low)

    def at_least(self, other: Interval) -> Interval:
        """The larger of two."""
        return Interval(*(max(one, two) for one, two in zip(self, other, strict=True)))

    def holds(self, value: float) -> bool:
        """Tell whether a value is within the bounds."""
        return self.low <= value <= self.high
