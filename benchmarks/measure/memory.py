"""The memory of a process and all that it starts, sampled while it runs, by kind of process."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil

# PSS shares out the pages that several processes hold together, so that a sum counts each once; RSS does not.
_NAMES = {True: "PSS", False: "RSS"}


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Of the processes of one kind: how many there were, the largest at its peak, and the peak of all together."""

    processes: int
    largest: int
    together: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peaks in bytes by kind of process.

    Kinds: `driver` is the command itself; `jvm` its Java; `daemon` the parent of Spark's Python workers; `decoder` a
    process that reads or decodes; `worker` every other Python.
    """

    measure: str
    samples: int
    sampling_seconds: float
    together: int
    kinds: dict[str, Peak]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`at` seconds from the start: bytes and open files by kind of process, and bytes of temporary files."""

    at: float
    memory: dict[str, int]
    files: dict[str, int]
    temporary: int


class MemoryWatch(threading.Thread):
    """Samples process `pid` and its descendants every `interval` seconds until `finish`.

    With a folder `temporary`, `samples` has each sample, with open files and the size of the folder.
    """

    def __init__(self, pid: int, interval: float, temporary: Path | None = None) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self._temporary = temporary
        self._root = psutil.Process(pid)
        self._interval = interval
        self._done = threading.Event()
        self._kinds: dict[int, str] = {}
        self._largest: dict[int, int] = defaultdict(int)
        self._together: dict[str, int] = defaultdict(int)
        self._all, self._samples, self._seconds = 0, 0, 0.0
        self._is_pss = True
        self._start = time.monotonic()

    def run(self) -> None:
        while not self._done.wait(self._interval):
            start = time.thread_time()
            self._sample()
            self._seconds += time.thread_time() - start

    def finish(self) -> Memory:
        self._done.set()
        self.join()
        by_kind: dict[str, list[int]] = defaultdict(list)
        for pid, size in self._largest.items():
            by_kind[self._kinds[pid]].append(size)
        return Memory(
            measure=_NAMES[self._is_pss],
            samples=self._samples,
            sampling_seconds=round(self._seconds, 2),
            together=self._all,
            kinds={
                kind: Peak(processes=len(sizes), largest=max(sizes), together=self._together[kind])
                for kind, sizes in sorted(by_kind.items())
            },
        )

    def _sample(self) -> None:
        at = time.monotonic() - self._start
        together: dict[str, int] = defaultdict(int)
        files: dict[str, int] = defaultdict(int)
        for process in self._processes():
            try:
                # Asked anew each time: a process that was just forked is not yet the program that it will be.
                kind = kind_of(process, self._root.pid)
                size = self._size(process)
                files[kind] += process.num_fds() if self._temporary else 0
            except psutil.Error:  # it ended in between
                continue
            self._kinds[process.pid] = kind
            self._largest[process.pid] = max(self._largest[process.pid], size)
            together[kind] += size
        for kind, size in together.items():
            self._together[kind] = max(self._together[kind], size)
        self._all = max(self._all, sum(together.values()))
        self._samples += 1
        if self._temporary and together:
            used = folder_size(self._temporary)
            self.samples.append(Sample(at=round(at, 2), memory=dict(together), files=dict(files), temporary=used))

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []

    def _size(self, process: psutil.Process) -> int:
        if self._is_pss:
            try:
                return int(process.memory_full_info().pss)
            except (psutil.AccessDenied, AttributeError):
                self._is_pss = False
        return int(process.memory_info().rss)


def kind_of(process: psutil.Process, root: int) -> str:
    """Tell which of the kinds of `Memory` a process is, of those that process `root` started."""
    if process.pid == root:
        return "driver"
    name = process.name()
    if name == "java":
        return "jvm"
    # Some name themselves anew, as torch's loaders do; the program behind it stays.
    if "python" not in os.path.basename(process.exe()):
        return "other"
    command = " ".join(process.cmdline())
    if "resource_tracker" in command:
        return "other"
    if "mission9.decoding." in command:
        return "decoder"
    parent = process.parent()
    return "daemon" if parent is not None and parent.name() == "java" else "worker"


def folder_size(folder: Path) -> int:
    """Bytes that the files below take; those that go in between take none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total
