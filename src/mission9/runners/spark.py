"""Tasks on Spark's workers, through the DataFrame API only."""

from __future__ import annotations

import errno
import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from mission9.concurrency.watchdog import PATIENCE, Patience, watched
from mission9.config import RunConfig
from mission9.errors import Mission9Error, StorageError, TaskError
from mission9.runners.base import Task, carry_out
from mission9.runners.spark_session import find_or_start_session, parallelism, silence, stop_session
from mission9.storage.local.errors import describe_error

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Tasks for each slot, so that the last one does not run long; and numbers in a task if there are many.
_FEW_TASKS, _NUMBERS_A_TASK = 8, 4

# The last line of a Python traceback, which Spark quotes within its own.
_PYTHON_ERROR = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception|Rejects)\b: .*)$", re.MULTILINE)


@contextmanager
def spark_runner(config: RunConfig) -> Iterator[SparkRunner]:
    """A runner on the running session, or on a new one that ends with the context.

    Raises:
        SetupError: pyspark or Java is missing, or Spark does not start.
    """
    spark, is_ours = find_or_start_session(config, for_runner=True)
    try:
        yield SparkRunner(spark, parallelism(spark))
    except BaseException:
        if is_ours:
            silence(spark)  # interrupted tasks log errors, which would follow the final message
        raise
    finally:
        if is_ours:
            stop_session(spark)


class SparkRunner:
    """Runs tasks on the workers of a session.

    If there are few numbers, each is a Spark task; if there are many, a task has four, since it costs a few hundredths
    of a second. `partitions` overrides the number of tasks.
    """

    def __init__(
        self,
        spark: SparkSession,
        parallelism: int,
        *,
        partitions: int | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self._spark = spark
        self._partitions = partitions
        self._patience = patience
        self.parallelism = parallelism

    def map(self, task: Task, count: int) -> list[bytes]:
        patience = self._patience

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    with watched(patience):
                        result = pa.array([carry_out(task, number)], pa.binary())
                    _spare_collections()
                    yield pa.record_batch([pa.array([number], pa.int64()), result], ["number", "result"])

        if not count:
            return []
        tasks = self._partitions or min(count, max(_FEW_TASKS * self.parallelism, -(-count // _NUMBERS_A_TASK)))
        numbers = self._spark.range(0, count, 1, tasks)
        try:
            rows = numbers.mapInArrow(run, "number long, result binary").collect()
        except Exception as error:  # classic and Connect, 3.5 and 4 raise different exceptions
            if interruption := _interruption(error):
                raise interruption from None
            raise _describe_cause(_cause(str(error))) from error
        results = {row.number: bytes(row.result) for row in rows}
        return [results[number] for number in range(count)]


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that an error hides: on its way out of a call, PySpark queries the JVM again, and may fail."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def _describe_cause(cause: str) -> Mission9Error:
    name, _, told = cause.partition(": ")
    if name.endswith(StorageError.__name__):
        return StorageError(told)
    if (full := os.strerror(errno.ENOSPC)) in cause:  # of Spark's own files, which the message does not name
        return StorageError(describe_error(OSError(errno.ENOSPC, full)))
    return TaskError(f"a Spark task failed: {cause}")


def _cause(text: str) -> str:
    """The Python error in Spark's message, else its first line."""
    found = _PYTHON_ERROR.findall(text)
    return str(found[0]) if found else text.strip().partition("\n")[0]


def _spare_collections() -> None:
    """Exclude the objects loaded so far from garbage collection.

    PySpark's workers collect all garbage after each task, which takes 40 ms with all the imports here.
    """
    if not gc.get_freeze_count():
        gc.freeze()


def partition_number() -> int:
    """The number of the partition that the Spark task of this process works on.

    Raises:
        RuntimeError: this process works on none.
    """
    from pyspark import TaskContext

    task = TaskContext.get()
    if task is None:
        raise RuntimeError("this runs in a Spark task only")
    return task.partitionId()
