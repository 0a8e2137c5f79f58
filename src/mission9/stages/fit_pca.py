"""Committed features -> a PCA model; workers compute the moments, one partial for each group of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from mission9 import pca
from mission9.pca import Moments, PCAModel
from mission9.runners.base import Runner
from mission9.schema import FEATURES, vectors
from mission9.stages.collect_shards import Rows

# A partial is 13 MB, so the driver holds at most about 300 MB, for any number of images.
MAX_PARTIALS = 24


@dataclass(frozen=True)
class MomentsOfRows:
    """Task that returns the moments of the rows in `groups[number]`, as bytes."""

    groups: tuple[tuple[Rows, ...], ...]

    def __call__(self, number: int) -> bytes:
        blocks = (vectors(rows.read(["features"])["features"]) for rows in self.groups[number])
        return pca.moments_of(blocks, FEATURES).to_bytes()


def fit_pca(runner: Runner, rows: Sequence[Rows], n_components: int | float) -> PCAModel:
    """The PCA of all rows.

    Raises:
        ConfigError: the number of components is not possible.
    """
    count = min(len(rows), runner.parallelism, MAX_PARTIALS)
    groups = tuple(tuple(rows[n::count]) for n in range(count))
    partials = runner.map(MomentsOfRows(groups), count)
    moments = reduce(Moments.merge, map(Moments.from_bytes, partials), Moments.empty(FEATURES))
    return pca.fit(moments, n_components)
