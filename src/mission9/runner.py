"""Who carries out the tasks of a stage: numbers go in, bytes come out, and the files are the tasks' own business."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Task = Callable[[int], bytes]


class Runner(Protocol):
    """Runs a task for each number below `count`, `parallelism` at a time; results come in order of number."""

    parallelism: int

    def map(self, task: Task, count: int) -> list[bytes]: ...


class SparkRunner:
    """Tasks on Spark's workers, by the DataFrame API alone.

    A number is a Spark task of its own, unless `partitions` says how many tasks share the numbers.
    """

    def __init__(self, spark: SparkSession, parallelism: int, *, partitions: int | None = None) -> None:
        self._spark = spark
        self._partitions = partitions
        self.parallelism = parallelism

    def map(self, task: Task, count: int) -> list[bytes]:
        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    result = pa.array([task(number)], pa.binary())
                    yield pa.record_batch([pa.array([number], pa.int64()), result], ["number", "result"])

        if not count:
            return []
        numbers = self._spark.range(0, count, 1, self._partitions or count)
        rows = numbers.mapInArrow(run, "number long, result binary").collect()
        results = {row.number: bytes(row.result) for row in rows}
        return [results[number] for number in range(count)]
