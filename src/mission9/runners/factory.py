"""The runner that the settings select."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mission9.devices import workers_here
from mission9.errors import SetupError
from mission9.runners.base import Runner
from mission9.runners.environment import is_submitted

if TYPE_CHECKING:
    from mission9.config import RunConfig

import logging

logger = logging.getLogger(__name__)


@contextmanager
def open_runner(config: RunConfig) -> Iterator[Runner]:
    """Open the runner that `config` selects.

    `auto` is Spark if a master is set, a session is running, or Java is found; else processes of this machine.

    Raises:
        SetupError: it is not available here.
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


def works_elsewhere(config: RunConfig) -> bool:
    """Return True if workers are on machines that may have resources that this one lacks, such as a GPU."""
    if config.runner == "local":
        return False
    return is_submitted() if config.master is None else not config.master.startswith("local")


def _why_not_spark(config: RunConfig) -> str:
    """The reason against Spark in a few words; empty if there is none."""
    if config.master or is_submitted() or _has_session():
        return ""
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed"
    from mission9.runners.java import check_user, find_java

    try:
        find_java()
        check_user()
    except SetupError as error:
        return str(error).partition(":")[0]
    return ""


def _has_session() -> bool:
    if "pyspark" not in sys.modules:
        return False
    from mission9.runners.spark_session import running_session

    return running_session() is not None
