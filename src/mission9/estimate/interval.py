"""An uncertain number: its lower bound, likeliest value and upper bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """The bounds of a positive number, and its likeliest value."""

    low: float
    mid: float
    high: float

    @staticmethod
    def of_mean(values: Sequence[float]) -> Interval:
        """The mean of a sample, with its 95 % confidence interval."""
        from scipy.stats import t

        mean = float(np.mean(values))
        if len(values) < 2:
            return Interval(mean / 2, mean, mean * 2)
        error = float(np.std(values, ddof=1)) / len(values) ** 0.5
        half = float(t.ppf(0.975, len(values) - 1)) * error
        return Interval(max(mean - half, mean / 2), mean, mean + half)

    def plus(self, other: Interval) -> Interval:
        """The sum of two intervals."""
        return Interval(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def times(self, factor: float) -> Interval:
        """The interval multiplied by a factor."""
        return Interval(self.low * factor, self.mid * factor, self.high * factor)

    def over(self, other: Interval) -> Interval:
        """The quotient of two independent intervals."""
        return Interval(self.low / other.high, self.mid / other.mid, self.high / other.low)

    def at_least(self, other: Interval) -> Interval:
        """The maximum of two intervals."""
        return Interval(*(max(one, two) for one, two in zip(self, other, strict=True)))

    def holds(self, value: float) -> bool:
        """Return True if a value is within the bounds."""
        return self.low <= value <= self.high
