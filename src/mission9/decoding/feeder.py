"""Paths and encoded images -> pixels, prepared by reader processes ahead of this one, in order."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mission9._package import python_path
from mission9.concurrency.watchdog import PATIENCE, is_stopped, progress
from mission9.decoding.decoder_process import turns_file
from mission9.decoding.pixel_memory import make_pixel_memory
from mission9.decoding.protocol import (
    FILE,
    HAS_READ,
    LOOK,
    MAX_IMAGES,
    READY,
    RECORD,
    START_LIMIT,
    TO_READ,
    DecoderSettings,
    write_all,
)
from mission9.errors import Reason

# Batches of a reader: this process uses one, one is ready or being decoded, and the files of one are being read.
_BATCHES = 3

# As `RECORD`.
_RECORD = np.dtype([("width", "<i4"), ("height", "<i4"), ("size", "<i8"), ("sha256", "u1", 32)])


class Given(NamedTuple):
    """An image to prepare: its bytes, or the path of its file."""

    data: bytes
    is_content: bool


class Rejected(NamedTuple):
    """The rejection of an image: its place in the batch, and why."""

    at: int
    stage: str
    reason: Reason
    message: str


@dataclass(frozen=True)
class Prepared:
    """A batch of images, each with a place in all arrays.

    `size` is -1 for an image that is not read, whose digest has no meaning. `pixels` are of the readable images, in
    order, (n, 224, 224, 4) uint8; those of an image that is not decoded have no meaning. They are valid until the next
    batch is requested.
    """

    width: NDArray[np.int32]
    height: NDArray[np.int32]
    size: NDArray[np.int64]
    sha256: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    rejected: list[Rejected]
    read_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class FeederSettings:
    """The settings of reader processes, and their number."""

    decoder: DecoderSettings
    max_bytes: int
    readers: int = 1


def prepare_in_order(batches: Iterable[Sequence[Given]], settings: FeederSettings) -> Iterator[Prepared]:
    """Each batch of at most `MAX_IMAGES` images prepared, in order, a bounded number of batches ahead.

    Raises:
        RuntimeError: a reader process fails, which is no image's fault.
    """
    idle = _idle.setdefault((settings, os.getpid()), queue.SimpleQueue())
    try:
        readers = idle.get_nowait()
    except queue.Empty:
        readers = [_Reader(settings) for _ in range(settings.readers)]
    try:
        yield from _in_order(iter(batches), readers)
    except BaseException:
        for reader in readers:
            reader.end()  # a pending answer must not be taken for the next batch's
        raise
    idle.put(readers)


def start_readers(settings: FeederSettings) -> None:
    """Start reader processes before they are needed."""
    for _ in prepare_in_order([], settings):
        pass


def _in_order(batches: Iterator[Sequence[Given]], readers: Sequence[_Reader]) -> Iterator[Prepared]:
    waiting: deque[_Reader] = deque()
    is_more = True
    while True:
        while is_more and (reader := max(readers, key=_Reader.free)).free():
            batch = next(batches, None)
            is_more = batch is not None
            if batch is not None:
                reader.send(batch)
                waiting.append(reader)
        if not waiting:
            return
        reader = waiting.popleft()
        yield reader.receive()
        reader.release()


class _Reader:
    """A reader process, and its memory for pixels."""

    def __init__(self, settings: FeederSettings) -> None:
        decoder = settings.decoder
        memory_file, self._pixels = make_pixel_memory(decoder, _BATCHES * MAX_IMAGES)
        files = memory_file, turns_file(os.getpid())
        arguments = [*decoder.arguments, settings.max_bytes, *files]
        self._free = deque(range(0, len(self._pixels), MAX_IMAGES))
        self._sent: deque[int] = deque()
        self._is_new = True
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", "mission9.decoding.reader", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=files,
            env=os.environ | {"PYTHONPATH": python_path()},
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 (for mypy)
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._memory_file = memory_file

    def free(self) -> int:
        """The number of batches that may be sent now."""
        return len(self._free)

    def send(self, batch: Sequence[Given]) -> None:
        first = self._free.popleft()
        self._sent.append(first)
        header = TO_READ.pack(len(batch), first) + b"".join(FILE.pack(one.is_content, len(one.data)) for one in batch)
        try:
            write_all(self._requests.fileno(), header + b"".join(one.data for one in batch))
        except BrokenPipeError as error:
            raise self._failure() from error

    def receive(self) -> Prepared:
        """Wait for the answer to the batch sent first; `release` its memory when it has been used."""
        if self._is_new:
            self._receive(len(READY), START_LIMIT)
            self._is_new = False
        count, read, decode, length = HAS_READ.unpack(self._receive(HAS_READ.size))
        records = np.frombuffer(self._receive(count * RECORD.size), _RECORD)
        told = json.loads(self._receive(length))
        if "failure" in told:
            raise RuntimeError(f"an image reader failed: {told['failure']}")
        first, readable = self._sent[0], int((records["size"] >= 0).sum())
        return Prepared(
            width=records["width"],
            height=records["height"],
            size=records["size"],
            sha256=records["sha256"],
            pixels=self._pixels[first : first + readable],
            rejected=[Rejected(*rejected) for rejected in told["rejects"]],
            read_seconds=read,
            decode_seconds=decode,
        )

    def release(self) -> None:
        self._free.append(self._sent.popleft())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._requests.close()
        self._answers.close()
        os.close(self._memory_file)

    def _receive(self, length: int, limit: float | None = None) -> bytes:
        found = b""
        while len(found) < length:
            self._wait(limit)
            part = self._answers.read(length - len(found))
            if not part:
                raise self._failure()
            found += part
        return found

    def _wait(self, limit: float | None) -> None:
        """Wait for an answer. Reading and decoding have time limits in the reader; here, only a stop counts.

        Checks are counted instead of time, which passes while this process is stopped.
        """
        looks = stopped = 0
        while not select.select([self._answers], [], [], LOOK)[0]:
            progress()
            looks, stopped = looks + 1, stopped + 1 if is_stopped(self._process.pid) else 0
            if stopped * LOOK >= PATIENCE.stop or (limit is not None and looks * LOOK >= limit):
                raise RuntimeError("an image reader does not answer")
        progress()

    def _failure(self) -> RuntimeError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return RuntimeError(f"an image reader ended with exit code {self._process.poll()}")


# Idle readers; a forked process does not inherit its parent's.
_idle: dict[tuple[FeederSettings, int], queue.SimpleQueue[list[_Reader]]] = {}


@atexit.register
def _end_readers() -> None:
    for (_, process), idle in _idle.items():
        while process == os.getpid() and not idle.empty():
            for reader in idle.get():
                reader.end()
