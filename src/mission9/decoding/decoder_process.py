"""Supervise a decoder process: one that crashes, exhausts memory or never returns costs one image."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import IO, Any, NamedTuple

from mission9._package import python_path
from mission9.concurrency.watchdog import is_stopped, progress
from mission9.decoding.protocol import (
    DECODED,
    LOOK,
    MAX_MESSAGE,
    NUMBER,
    READY,
    START_LIMIT,
    TIME_LIMIT,
    TO_DECODE,
    Counters,
    DecoderSettings,
)
from mission9.errors import REASONS, ImageError

_SMALL = 1 << 20  # bytes of images that are copied together, to be sent at once
_PATIENCE = 5.0  # seconds beyond an image's time limit, for a decoder that fails to end itself

# No picture is longer, and none takes so many CPU seconds: a decoder that reports more has been taken over.
_MAX_SIDE, _MAX_SECONDS = (1 << 31) - 1, 1e6


class Success(NamedTuple):
    """A picture's upright size, and its decoding time in CPU seconds."""

    width: int
    height: int
    seconds: float


class Decoder:
    """A process that decodes images into a memory for pixels; if it ends, the next images start another.

    `turns` is the lock file of `turns_file`.
    """

    def __init__(self, settings: DecoderSettings, memory_file: int, turns: int) -> None:
        self._settings = settings
        self._files = (memory_file, turns)
        self._counters = Counters(memory_file)
        self._errors = os.fdopen(os.memfd_create("mission9-errors"), "w+b")
        self._process: subprocess.Popen[bytes] | None = None
        self._is_new = False
        self._was_stopped = False

    def start(self) -> None:
        """Start the process, before it is needed."""
        self._process = self._process or self._new()

    def decode(self, images: Sequence[bytes], first: int = 0, *, again: bool = True) -> list[Success | ImageError]:
        """An outcome for each of at most `MAX_IMAGES` images; pixels are in the memory from the place `first` on.

        An image that kills the process is rejected as `timeout` or `decoder_crashed`. With `again`, it is retried: the
        system may have killed the process for lack of memory, or its time may have passed while everything was stopped
        by Ctrl-Z.
        """
        if not images:
            return []
        process = self._process = self._process or self._new()
        self._greet(process)
        self._counters.at, self._counters.waits, self._was_stopped = 0, False, False
        try:
            self._send(process, images, first)
            return self._outcomes(process, len(images))
        except (OSError, EOFError, ValueError):
            self._process = None
            culprit = min(max(self._counters.at, 0), len(images) - 1)
            fate = self._fate(process)
        retry = again and (fate.reason == "decoder_crashed" or self._was_stopped)
        before = self.decode(images[:culprit], first, again=again)
        there = self.decode([images[culprit]], first + culprit, again=False) if retry else [fate]
        return [*before, *there, *self.decode(images[culprit + 1 :], first + culprit + 1, again=again)]

    def end(self) -> None:
        """Close the process's input, which makes it end."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=1)
        self.kill()
        self._errors.close()

    def kill(self) -> None:
        """End the process immediately."""
        process, self._process = self._process, None
        if process is not None:
            _kill(process)

    def _new(self) -> subprocess.Popen[bytes]:
        arguments = [*self._settings.arguments, *map(str, self._files)]
        self._is_new = True
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", "mission9.decoding.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=self._files,
            env=os.environ | {"PYTHONPATH": python_path()},
            bufsize=0,
        )
        assert process.stdin is not None  # noqa: S101 (for mypy)
        os.set_blocking(process.stdin.fileno(), False)  # a stopped child may not read all of a large image
        return process

    def _greet(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a new process to start. A failure to start is no image's fault.

        Raises:
            RuntimeError: it does not start.
        """
        assert process.stdout is not None  # noqa: S101 (for mypy)
        if not self._is_new:
            return
        there = select.select([process.stdout], [], [], START_LIMIT)[0]
        if not there or process.stdout.read(len(READY)) != READY:
            self.kill()
            raise RuntimeError(f"the decoder process does not start{self._last_words()}")
        self._is_new = False

    def _outcomes(self, process: subprocess.Popen[bytes], images: int) -> list[Success | ImageError]:
        assert process.stdout is not None  # noqa: S101 (for mypy)
        (length,) = NUMBER.unpack(self._read(process.stdout, process.pid, NUMBER.size))
        if length > images * (DECODED.size + MAX_MESSAGE):
            raise ValueError(f"an answer of {length} bytes")
        answer = self._read(process.stdout, process.pid, length)
        outcomes = list(_parsed(answer))
        if len(outcomes) != images:
            raise ValueError(f"{len(outcomes)} answers for {images} images")
        return outcomes

    def _read(self, stream: IO[bytes], child: int, length: int) -> bytes:
        found = b""
        while len(found) < length:
            self._wait(child, reading=[stream])
            part = stream.read(length - len(found))
            if not part:
                raise EOFError
            found += part
        return found

    def _send(self, process: subprocess.Popen[bytes], images: Sequence[bytes], first: int) -> None:
        assert process.stdin is not None  # noqa: S101 (for mypy)
        header = TO_DECODE.pack(len(images), first) + b"".join(NUMBER.pack(len(image)) for image in images)
        is_small = sum(map(len, images)) < _SMALL
        for part in [header + b"".join(images)] if is_small else (header, *images):
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
        seen, looks, start = self._counters.at, 0, time.monotonic()
        while not any(select.select(reading, writing, [], LOOK)):
            progress()  # the child's own time limit applies here
            at, waits = self._counters.at, self._counters.waits and not is_stopped(child)
            looks = 0 if waits or at != seen else looks + 1
            if looks * LOOK >= TIME_LIMIT + _PATIENCE:
                raise EOFError
            seen, start = at, self._note_stop(start)
        self._note_stop(start)
        progress()

    def _note_stop(self, since: float) -> float:
        now = time.monotonic()
        self._was_stopped |= now - since > 2 * LOOK
        return now

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


def _parsed(answer: bytes) -> Iterator[Success | ImageError]:
    """The outcomes in a decoder's answer.

    Raises:
        ValueError: it is not such an answer.
    """
    at = 0
    while at < len(answer):
        if len(answer) - at < DECODED.size:
            raise ValueError("a record is incomplete")
        width, height, seconds, reason, length = DECODED.unpack_from(answer, at)
        at += DECODED.size
        words, at = answer[at : at + length], at + length
        if reason > len(REASONS) or not 0 <= seconds < _MAX_SECONDS or max(width, height) > _MAX_SIDE:
            raise ValueError("a record holds impossible numbers")
        yield ImageError(REASONS[reason - 1], words.decode()) if reason else Success(width, height, seconds)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@cache
def turns_file(process: int) -> int:  # noqa: ARG001
    """A lock file for all decoders that serve a process: they decode large pictures one at a time."""
    return os.memfd_create("mission9-turns")
