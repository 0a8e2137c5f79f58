"""Scores in chunks, which the driver reads one at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mission9 import pca
from mission9.pca import PCAModel
from mission9.runners.base import Task
from mission9.schema import FEATURES
from mission9.stages.collect_shards import Rows
from mission9.stages.project import ProjectRows, project


class Noting:
    """A runner that notes tasks instead of carrying them out."""

    parallelism = 2

    def __init__(self) -> None:
        self.groups: list[tuple[Rows, ...]] = []

    def map(self, task: Task, count: int) -> list[bytes]:
        assert isinstance(task, ProjectRows)
        self.groups = [task.groups[number] for number in range(count)]
        return [b""] * count


@pytest.fixture(scope="module")
def model() -> PCAModel:
    vectors = np.random.default_rng(3).random((9, FEATURES), np.float32)
    return pca.fit(pca.moments_of([vectors], FEATURES), 2)


@pytest.mark.parametrize(("row_groups", "chunks"), [(3, 3), (100, 8), (1_000, 63), (10_000, 625)])
def test_a_chunk_does_not_grow_with_the_images(model: PCAModel, tmp_path: Path, row_groups: int, chunks: int) -> None:
    rows = [Rows(tmp_path / "features", number) for number in range(row_groups)]
    runner = Noting()
    scores = project(runner, model, {"Training": rows}, tmp_path / "chunks")
    assert list(scores) == ["Training"]
    assert [row for group in runner.groups for row in group] == rows
    assert len(runner.groups) == chunks
    assert max(map(len, runner.groups)) <= 16
