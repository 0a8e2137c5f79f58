from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mission9.errors import TaskError
from mission9.runners.spark import SparkRunner


@pytest.mark.parametrize("partitions", [None, 1, 3])
def test_results_come_in_order_of_number(spark: SparkSession, partitions: int | None) -> None:
    runner = SparkRunner(spark, 2, partitions=partitions)
    assert runner.map(lambda number: str(number).encode(), 10) == [str(n).encode() for n in range(10)]
    assert runner.map(bytes, 0) == []


def test_a_failing_task_is_told_by_its_own_error(spark: SparkSession) -> None:
    def task(number: int) -> bytes:
        raise ValueError(f"number {number} is wrong")

    with pytest.raises(TaskError, match="^a Spark task failed: ValueError: number 0 is wrong$"):
        SparkRunner(spark, 2).map(task, 1)


@pytest.mark.timeout(120)
def test_a_worker_that_dies_once_costs_a_try_and_nothing_else(spark: SparkSession, tmp_path: Path) -> None:
    def task(number: int) -> bytes:
        import os

        mark = tmp_path / f"{number}"
        if number == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        return b"done"

    assert SparkRunner(spark, 2).map(task, 4) == [b"done"] * 4
