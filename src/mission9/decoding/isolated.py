"""Bytes -> the network's input pixels, decoded in a child process.

A decoder that crashes, exhausts memory or never returns costs one image. The child answers in JSON and writes pixels to
shared memory, so that nothing from it is ever unpickled, even if an image has taken it over.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mission9._package import python_path
from mission9.concurrency.watchdog import is_stopped, progress
from mission9.decoding import worker
from mission9.decoding.worker import NUMBER, READY, SHARED_BYTES, TIME_LIMIT, DecoderSettings, Shared
from mission9.errors import REASONS, ImageError

_PATIENCE = 5.0  # seconds beyond an image's time limit, for a child that fails to end itself
_LOOK = 1.0  # seconds between checks of a child; a check that takes longer shows that this process was stopped
_START_LIMIT = 120.0  # seconds for a child to start, on a busy machine


class Decoded(NamedTuple):
    """A picture's upright size, its (224, 224, 4) uint8 pixels, and its decoding time in CPU seconds.

    A thumbnail occupies the upper left of (64, 64, 4).
    """

    width: int
    height: int
    pixels: NDArray[np.uint8]
    seconds: float


def decode_apart(images: Sequence[bytes], settings: DecoderSettings) -> list[Decoded | ImageError]:
    """The pixels of at most `MAX_IMAGES` encoded images, or the reason for each reject, in order.

    One of this process's children decodes them; another is started if all are busy. An image that kills the child is
    rejected as `timeout` or `decoder_crashed`.
    """
    with _a_child(settings) as child:
        return child.decode(images)


class _Child:
    """A process that decodes images; if it ends, the next images start another."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        self._memory_file = os.memfd_create("mission9-pixels")
        os.ftruncate(self._memory_file, SHARED_BYTES)
        self._shared = Shared.of(mmap.mmap(self._memory_file, SHARED_BYTES), settings.side)
        self._errors = os.fdopen(os.memfd_create("mission9-errors"), "w+b")
        self._process: subprocess.Popen[bytes] | None = None
        self._is_new = False
        self._was_stopped = False

    def decode(self, images: Sequence[bytes], *, again: bool = True) -> list[Decoded | ImageError]:
        """An outcome for each image; pixels are copied, since the next images overwrite them.

        With `again`, an image that killed the child is retried: the system may have killed it for lack of memory, or
        its time may have passed while everything was stopped by Ctrl-Z.
        """
        process = self._process = self._process or self._start()
        if not images:
            return []
        self._greet(process)
        self._shared.at[0], self._shared.waiting[0], self._was_stopped = 0, 0, False
        try:
            self._send(process, images)
            return self._outcomes(self._answers(process), len(images))
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            self._process = None
            culprit = min(max(int(self._shared.at[0]), 0), len(images) - 1)
            fate = self._fate(process)
        retry = again and (fate.reason == "decoder_crashed" or self._was_stopped)
        before = self.decode(images[:culprit], again=again)
        there = self.decode([images[culprit]], again=False) if retry else [fate]
        return [*before, *there, *self.decode(images[culprit + 1 :], again=again)]

    def end(self) -> None:
        """Close the child's input, which makes it end."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=1)
        self.kill()
        self._errors.close()

    def kill(self) -> None:
        """End the child immediately."""
        process, self._process = self._process, None
        if process is not None:
            _kill(process)

    def _start(self) -> subprocess.Popen[bytes]:
        files = [self._memory_file, _turns(os.getpid())]
        arguments = [self._settings.preprocess, str(self._settings.max_pixels), *map(str, files)]
        self._is_new = True
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", worker.__name__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=files,
            env=os.environ | {"PYTHONPATH": python_path()},
            bufsize=0,
        )
        assert process.stdin is not None  # noqa: S101 (for mypy)
        os.set_blocking(process.stdin.fileno(), False)  # a stopped child may not read all of a large image
        return process

    def _greet(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a new child to start. A failure to start is no image's fault.

        Raises:
            RuntimeError: it does not start.
        """
        assert process.stdout is not None  # noqa: S101 (for mypy)
        if not self._is_new:
            return
        there = select.select([process.stdout], [], [], _START_LIMIT)[0]
        if not there or process.stdout.read(len(READY)) != READY:
            self.kill()
            raise RuntimeError(f"the decoder process does not start{self._last_words()}")
        self._is_new = False

    def _answers(self, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        assert process.stdout is not None  # noqa: S101 (for mypy)
        told = b""
        while not told.endswith(b"\n"):
            self._wait(process.pid, reading=[process.stdout])
            part = process.stdout.read(1 << 16)
            if not part:
                raise EOFError
            told += part
        answers: list[dict[str, Any]] = json.loads(told)
        return answers

    def _send(self, process: subprocess.Popen[bytes], images: Sequence[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101 (for mypy)
        lengths = b"".join(map(NUMBER.pack, (len(images), *map(len, images))))
        for part in (lengths, *images):
            rest = memoryview(part)
            while rest:
                self._wait(process.pid, writing=[process.stdin])
                rest = rest[process.stdin.write(rest) or 0 :]

    def _wait(self, child: int, *, reading: Sequence[Any] = (), writing: Sequence[Any] = ()) -> None:
        """Wait until one of the pipes is ready.

        Checks are counted instead of time, which passes while this process is stopped.

        Raises:
            EOFError: the child exceeds its time limit for one image.
        """
        seen, looks, start = int(self._shared.at[0]), 0, time.monotonic()
        while not any(select.select(reading, writing, [], _LOOK)):
            progress()  # the child's own time limit applies here
            at, waits = int(self._shared.at[0]), self._shared.waiting[0] and not is_stopped(child)
            looks = 0 if waits or at != seen else looks + 1
            if looks * _LOOK >= TIME_LIMIT + _PATIENCE:
                raise EOFError
            seen, start = at, self._note_stop(start)
        self._note_stop(start)
        progress()

    def _note_stop(self, since: float) -> float:
        now = time.monotonic()
        self._was_stopped |= now - since > 2 * _LOOK
        return now

    def _outcomes(self, answers: list[dict[str, Any]], images: int) -> list[Decoded | ImageError]:
        if len(answers) != images:
            raise ValueError(f"{len(answers)} answers for {images} images")
        pixels = self._shared.pixels[:images].copy()
        return [_outcome(answer, place) for answer, place in zip(answers, pixels, strict=True)]

    def _fate(self, process: subprocess.Popen[bytes]) -> ImageError:
        """The error of a child that no longer answers properly; it is ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        hung = process.poll() is None or process.returncode == -signal.SIGALRM
        _kill(process)
        words = self._last_words()
        if hung:
            return ImageError("timeout", f"decoding took more than {TIME_LIMIT:g} s")
        code = process.returncode
        how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
        return ImageError("decoder_crashed", f"the decoder ended with: {how}{words}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-1000:].decode(errors="replace").split("\n")
        self._errors.seek(0)
        self._errors.truncate()
        words = [line.strip() for line in lines if line.strip()]
        return f" ({words[-1][:200]})" if words else ""


def _outcome(answer: dict[str, Any], pixels: NDArray[np.uint8]) -> Decoded | ImageError:
    if answer.get("reason") in REASONS:
        return ImageError(answer["reason"], str(answer["message"]))
    return Decoded(int(answer["width"]), int(answer["height"]), pixels, float(answer["seconds"]))


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@contextlib.contextmanager
def _a_child(settings: DecoderSettings) -> Iterator[_Child]:
    idle = _idle.setdefault((settings, os.getpid()), queue.SimpleQueue())
    try:
        child = idle.get_nowait()
    except queue.Empty:
        child = _Child(settings)
    try:
        yield child
    except BaseException:
        child.kill()  # a pending answer must not be taken for the next images'
        raise
    finally:
        idle.put(child)


# Idle children; a forked process does not inherit its parent's.
_idle: dict[tuple[DecoderSettings, int], queue.SimpleQueue[_Child]] = {}


@atexit.register
def _end_children() -> None:
    for (_, process), idle in _idle.items():
        while process == os.getpid() and not idle.empty():
            idle.get().end()


@cache
def _turns(process: int) -> int:  # noqa: ARG001
    """A lock file for the children of a process, which decode large pictures one at a time."""
    return os.memfd_create("mission9-turns")
