"""Whole commands in processes of their own, which extract as a test wants it: for ever, or up to a certain shard.

How long extraction takes differs from machine to machine: what is to happen in the middle of it must not hang on that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

# A class of the main module goes to workers by value: it does there what it does here.
_PROGRAM = """
import sys, time
from pathlib import Path
from mission9.models import extraction
from mission9.pipeline import run as pipeline
from mission9.cli import program
from mission9.output.shards import read_marker
from mission9.stages.extract_shard import ExtractShards

class HeldUp(ExtractShards):
{methods}
extraction.SHARD_IMAGES = {{"cpu": {shard_images}}}
pipeline.ExtractShards = HeldUp
program()
"""

# Shards 0 and 1 are committed, and no other.
UP_TO_THE_SECOND = """
    def __call__(self, number):
        while number > 1:
            time.sleep(1)
        return super().__call__(number)
"""

# From shard 2 on there is no end of work.
WITHOUT_END = """
    def _is_committed(self, shard):
        return False

    def __call__(self, number):
        done = super().__call__(number)
        while number > 1:
            super().__call__(number)
        return done
"""


def command(methods: str, *words: str, shard_images: int) -> list[str]:
    """`mission9` with these words, by a task with these methods."""
    return [sys.executable, "-c", _PROGRAM.format(methods=methods, shard_images=shard_images), *words]


def wait_until(is_so: Callable[[], object], *, seconds: float = 300) -> None:
    """Wait for what is to come, however busy the machine is.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seconds:g} s went by")
        time.sleep(0.02)
