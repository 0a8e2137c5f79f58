"""A command in a process of its own, timed from outside, its memory sampled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
from benchmarks.measure import REPOSITORY
from benchmarks.measure.memory import Memory, MemoryWatch, Sample

TIMEOUT = 7200
SAMPLING = 1.0  # seconds; a sample costs about 25 ms of a core


@dataclass(frozen=True, kw_only=True)
class Done:
    """The end of a command: `wall` is seconds from start to end of its process, `samples` those asked for."""

    code: int
    wall: float
    output: str
    errors: str
    memory: Memory
    samples: list[Sample] = field(default_factory=list)

    @property
    def failure(self) -> str:
        """The reason of a failure, in a line; empty if there is none."""
        if not self.code:
            return ""
        told = self.errors.strip().splitlines()
        return f"it ended with code {self.code}: {told[-1] if told else 'it said nothing'}"

    def last_json(self) -> dict[str, Any]:
        """Return the last line that holds JSON, parsed."""
        lines = [line for line in self.output.splitlines() if line.startswith("{")]
        return cast(dict[str, Any], json.loads(lines[-1])) if lines else {}


def run_command(
    command: Sequence[str],
    *,
    cwd: Path = REPOSITORY,
    environment: Mapping[str, str] | None = None,
    sampling: float = SAMPLING,
    temporary: Path | None = None,
) -> Done:
    """Run a command to its end; with a folder of its temporary files, `samples` tell what it holds."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603
            command, cwd=cwd, env=clean_environment() | dict(environment or {}), stdout=output, stderr=errors
        )
        watch = MemoryWatch(process.pid, sampling, temporary)
        watch.start()
        limit = threading.Timer(TIMEOUT, _end, [process])
        limit.start()
        try:
            code = process.wait()
            wall = time.perf_counter() - start
        except BaseException:
            _end(process)
            raise
        finally:
            limit.cancel()
            memory = watch.finish()
        output.seek(0)
        errors.seek(0)
        return Done(
            code=code,
            wall=round(wall, 3),
            output=output.read(),
            errors=errors.read(),
            memory=memory,
            samples=watch.samples,
        )


def run_module(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a program among the benchmarks, and return the JSON that it prints.

    Raises:
        ChildFailed: with what it said last.
    """
    done = run_command([sys.executable, "-m", f"benchmarks.measure.{module}", *arguments], environment=environment)
    if done.failure:
        raise ChildFailed(done.failure)
    return done.last_json()


class ChildFailed(Exception):
    """A part of the benchmark could not be measured."""


def clean_environment() -> dict[str, str]:
    """The environment without settings of mission9's, and with this checkout to import from."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MISSION9_") and name not in ("SPARK_DRIVER_MEMORY", "SPARK_EXECUTOR_MEMORY")
    }
    here = [str(REPOSITORY / "src"), str(REPOSITORY), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, here)), "PYSPARK_PYTHON": sys.executable}


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a command and what it has started."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        started = []
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in started:
        if child.is_running():
            child.kill()
