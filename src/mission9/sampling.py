"""Samples of a stream or a table: at random, or evenly spread."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Reservoir(Generic[T]):
    """At most `size` items of a stream, each as likely as any other (Vitter 1985, algorithm R).

    The same stream gives the same items. `seen` counts all that were offered.
    """

    def __init__(self, size: int) -> None:
        self.items: list[T] = []
        self.seen = 0
        self._size = size
        self._random = random.Random(0)  # noqa: S311 - a sample, not a secret

    def offer(self, make: Callable[[], T]) -> None:
        """Offer the next item of the stream; call `make` only if the item is kept."""
        place = self.seen if self.seen < self._size else self._random.randrange(self.seen + 1)
        self.seen += 1
        if place < self._size:
            self.items[place : place + 1] = [make()]

    def shuffle(self) -> None:
        """Put the items in random order."""
        self._random.shuffle(self.items)


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers below `count`, evenly spread."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)
