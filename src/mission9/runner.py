"""Who carries out the tasks of a stage: numbers go in, bytes come out, and the files are the tasks' own business."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from mission9.errors import TaskError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Task = Callable[[int], bytes]

# The line that ends a Python traceback, which Spark quotes in the middle of its own.
_PYTHON_ERROR = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception|Rejects)\b: .*)$", re.MULTILINE)


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
        try:
            rows = numbers.mapInArrow(run, "number long, result binary").collect()
        except Exception as error:  # classic and Connect, 3.5 and 4 raise different ones
            raise TaskError(f"a Spark task failed: {_cause(str(error))}") from error
        results = {row.number: bytes(row.result) for row in rows}
        return [results[number] for number in range(count)]


def _cause(text: str) -> str:
    """The Python error among the lines that Spark says, else the first of them."""
    found = _PYTHON_ERROR.findall(text)
    return str(found[0]) if found else text.strip().partition("\n")[0]
