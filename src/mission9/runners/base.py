"""The port of a runner, which executes the tasks of a stage."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Protocol

from mission9.errors import DeviceError
from mission9.storage.local.errors import translate_errors
from mission9.storage.local.files import retry_io

Task = Callable[[int], bytes]


class Runner(Protocol):
    """Runs a task for each number below `count`, `parallelism` at a time; results are in order of number.

    A failed task is retried; one that fails each time raises `TaskError`.
    """

    parallelism: int

    def map(self, task: Task, count: int) -> list[bytes]: ...


class InProcessRunner:
    """Runs tasks in this process, one at a time: for tables too small to send to workers."""

    parallelism = 1

    def map(self, task: Task, count: int) -> list[bytes]:
        return [retry_io(partial(task, number)) for number in range(count)]


def carry_out(task: Task, number: int) -> bytes:
    """Run a task on a worker; if its GPU fails, end this process, so that the next attempt has another.

    Raises:
        StorageError: a disk fails permanently.
    """
    try:
        with translate_errors(only_final=True):
            return task(number)
    except DeviceError as error:
        sys.stderr.write(f"mission9: {error}. This worker ends, and another retries its task\n")
        sys.stderr.flush()
        os._exit(1)
