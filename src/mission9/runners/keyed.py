"""A runner whose workers have access to the encryption key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mission9.crypto.parquet import encrypted_by

if TYPE_CHECKING:
    from mission9.runners.base import Runner, Task


class KeyedRunner:
    """A runner whose tasks encrypt their tables."""

    def __init__(self, runner: Runner, source: str) -> None:
        self.parallelism = runner.parallelism
        self._runner, self._source = runner, source

    def map(self, task: Task, count: int) -> list[bytes]:
        return self._runner.map(_KeyedTask(task, self._source), count)


@dataclass(frozen=True)
class _KeyedTask:
    task: Task
    source: str

    def __call__(self, number: int) -> bytes:
        with encrypted_by(self.source):
            return self.task(number)
