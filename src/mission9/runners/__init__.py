"""Who carries out the tasks of a stage: numbers go in, bytes come out, and the files are the tasks' own business."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from mission9 import devices
from mission9.disk.failures import storage_told
from mission9.disk.files import patiently
from mission9.errors import SetupError
from mission9.runners.environment import is_submitted

if TYPE_CHECKING:
    from mission9.config import RunConfig

logger = logging.getLogger(__name__)

Task = Callable[[int], bytes]
RunnerName = Literal["auto", "spark", "local"]


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
        return [patiently(partial(task, number)) for number in range(count)]


def carry_out(task: Task, number: int) -> bytes:
    """What a task gives, on a worker.

    Raises:
        StorageError: a disk fails in a way that another try does not mend.
    """
    with storage_told(only_final=True):
        return task(number)


@contextmanager
def open_runner(config: RunConfig) -> Iterator[Runner]:
    """The runner that `config` asks for.

    `auto` is Spark where a master is given, a session runs already, or Java is found; else processes of this machine.

    Raises:
        SetupError: it cannot be had here.
    """
    why_local = "" if config.runner != "auto" else _why_not_spark(config)
    if config.runner == "local" or why_local:
        from mission9.runners.local import LocalRunner

        with LocalRunner(config.workers or workers_here(config.device)) as runner:
            because = f"{why_local}: " if why_local else ""
            logger.info("%s%s worker processes, without Spark", because, runner.parallelism)
            yield runner
    else:
        from mission9.runners.spark import spark_runner

        with spark_runner(config) as runner:
            yield runner


def workers_here(device: str) -> int:
    """How many tasks this machine runs at a time: one a GPU, or one a core that this process may use."""
    import loky

    if device == "cuda" or (device == "auto" and devices.has_cuda()):
        return devices.gpus_here()
    return int(loky.cpu_count())


def works_elsewhere(config: RunConfig) -> bool:
    """Whether workers are on machines that may have what this one lacks, a GPU say."""
    if config.runner == "local":
        return False
    return is_submitted() if config.master is None else not config.master.startswith("local")


def _why_not_spark(config: RunConfig) -> str:
    """What speaks against Spark in a few words; empty when nothing does."""
    if config.master or is_submitted() or _has_session():
        return ""
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed"
    from mission9.java import check_user, find_java

    try:
        find_java()
        check_user()
    except SetupError as error:
        return str(error).partition(":")[0]
    return ""


def _has_session() -> bool:
    if "pyspark" not in sys.modules:
        return False
    from mission9.session import running_session

    return running_session() is not None
