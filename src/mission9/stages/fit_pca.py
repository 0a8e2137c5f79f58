"""Committed features -> a PCA model; the moments are taken on the workers, one partial for a group of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pyarrow.parquet as pq

from mission9 import pca
from mission9.mobilenet_v2 import FEATURES
from mission9.pca import Moments, PCAModel
from mission9.runner import Runner
from mission9.schema import vectors

# A partial is 13 MB, so the driver holds about 300 MB at the most, whatever the number of images.
MOST_PARTIALS = 24


@dataclass(frozen=True)
class MomentsOfFiles:
    """Called with a number, gives the moments of that group of features files, as bytes."""

    groups: tuple[tuple[Path, ...], ...]

    def __call__(self, number: int) -> bytes:
        files = self.groups[number]
        blocks = (vectors(pq.read_table(file, columns=["features"])["features"]) for file in files)
        return pca.moments_of(blocks, FEATURES).to_bytes()


def fit_pca(runner: Runner, files: Sequence[Path], n_components: int | float) -> PCAModel:
    """The PCA of all rows in `files`.

    Raises:
        ConfigError: so many components are not possible.
    """
    count = min(len(files), runner.parallelism, MOST_PARTIALS)
    groups = tuple(tuple(files[n::count]) for n in range(count))
    partials = runner.map(MomentsOfFiles(groups), count)
    moments = reduce(Moments.merge, map(Moments.from_bytes, partials), Moments.empty(FEATURES))
    return pca.fit(moments, n_components)
