"""Find nearest neighbours by Euclidean distance, in blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

_BLOCK = 1 << 18  # distances at a time: 2 MB, which fits a core's cache

Indices = NDArray[np.int64]
Distances = NDArray[np.float32]


def nearest(known: NDArray[np.float32], asked: NDArray[np.float32], count: int) -> tuple[Indices, Distances]:
    """The indices and distances of the `count` nearest known rows for each row asked, nearest first."""
    return _nearest(known, asked, count, others=False)


def nearest_others(rows: NDArray[np.float32], count: int) -> tuple[Indices, Distances]:
    """The nearest neighbours of each row among the other rows."""
    return _nearest(rows, rows, count, others=True)


def _nearest(
    known: NDArray[np.float32], asked: NDArray[np.float32], count: int, *, others: bool
) -> tuple[Indices, Distances]:
    centre = known.mean(0, dtype=np.float64) if len(known) else 0.0
    points, queries = known - centre, asked - centre  # float64, near 0: identical rows stay at distance 0
    count = max(0, min(count, len(known) - others))
    places = np.zeros((len(asked), count), np.int64)
    distances = np.zeros((len(asked), count), np.float32)
    lengths = (points**2).sum(1)
    step = max(1, _BLOCK // max(1, len(known)))
    with threadpool_limits(1, user_api="blas"):  # blocks are small, so more threads would wait for each other
        for start in range(0, len(asked) if count else 0, step):
            rows = slice(start, start + step)
            squares = lengths - 2 * queries[rows] @ points.T + (queries[rows] ** 2).sum(1)[:, np.newaxis]
            if others:
                squares[np.arange(len(squares)), np.arange(start, start + len(squares))] = np.inf
            places[rows], found = _smallest(squares, count)
            distances[rows] = np.sqrt(np.maximum(found, 0))
    return places, distances


def _smallest(squares: NDArray[np.float64], count: int) -> tuple[Indices, NDArray[np.float64]]:
    """The `count` smallest of each row, in order; they are set to inf in `squares`.

    A few passes for the minimum are several times as fast as a partition.
    """
    rows = np.arange(len(squares))
    places = np.empty((len(squares), count), np.int64)
    found = np.empty((len(squares), count))
    for each in range(count):
        least = places[:, each] = squares.argmin(1)
        found[:, each] = squares[rows, least]
        squares[rows, least] = np.inf
    return places, found
