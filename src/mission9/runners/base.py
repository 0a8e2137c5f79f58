"""The port of a runner: who carries out the tasks of a stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from mission9.storage.local.errors import translate_errors
from mission9.storage.local.files import retry_io

Task = Callable[[int], bytes]


class Runner(Protocol):
    """Runs a task for each number below `count`, `parallelism` at a time; results come in order of number.

    A task that fails is tried again; one that fails each time raises `TaskError`.
    """

    parallelism: int

    def map(self, task: Task, count: int) -> list[bytes]: ...


class InProcessRunner:
    """Tasks in this process, one after the other: for tables so small that sending them out costs more."""

    parallelism = 1

    def map(self, task: Task, count: int) -> list[bytes]:
        return [retry_io(partial(task, number)) for number in range(count)]


def carry_out(task: Task, number: int) -> bytes:
    """Return what a task gives, on a worker.

    Raises:
        StorageError: a disk fails in a way that another try does not fix.
    """
    with translate_errors(only_final=True):
        return task(number)
