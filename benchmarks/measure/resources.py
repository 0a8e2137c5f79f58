"""What a process and all that it starts hold, over time: memory, open files, temporary space."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from benchmarks.measure.memory import kind_of


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`at` seconds from the start: bytes (PSS) and open files by kind of process, and bytes of temporary files."""

    at: float
    memory: dict[str, int]
    files: dict[str, int]
    temporary: int


@contextmanager
def watched(parent: int, temporary: Path, interval: float = 1.0) -> Iterator[list[Sample]]:
    """Samples of what the first child of `parent` and its descendants hold, added while the context lasts."""
    samples: list[Sample] = []
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(parent, temporary, interval, done, samples), daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _watch(parent: int, temporary: Path, interval: float, done: threading.Event, samples: list[Sample]) -> None:
    start = time.monotonic()
    while not done.wait(interval):
        children = psutil.Process(parent).children()
        if children:
            samples.append(_sample(children[0], temporary, time.monotonic() - start))


def _sample(root: psutil.Process, temporary: Path, at: float) -> Sample:
    memory: dict[str, int] = defaultdict(int)
    files: dict[str, int] = defaultdict(int)
    for process in _family(root):
        try:
            kind = kind_of(process, root.pid)
            memory[kind] += int(process.memory_full_info().pss)
            files[kind] += int(process.num_fds())
        except psutil.Error:  # it ended in between
            continue
    return Sample(at=round(at, 2), memory=dict(memory), files=dict(files), temporary=_size(temporary))


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _size(folder: Path) -> int:
    """Bytes that the files below take; those that go in between take none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total
