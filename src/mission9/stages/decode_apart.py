"""Bytes -> the pixels that the network sees, in a child process: a decoder that crashes, eats memory or never returns
costs one image.

The child answers in JSON and leaves pixels in memory that both share, so that nothing it says is ever unpickled, even if
an image took it over.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import queue
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

import mission9
from mission9.errors import REASONS, ImageError
from mission9.mobilenet_v2 import INPUT_SIZE
from mission9.preprocess import INPUT_CHANNELS, Preprocess, to_input
from mission9.stages.decode_image import open_image, to_picture

TIME_LIMIT = 10.0  # seconds for an image
_PATIENCE = 5.0  # more, for a child that does not even end itself

# Pillow keeps 4 bytes a pixel, two such pictures while it converts, and with some formats a copy more; beside that, what
# the child holds from the start.
_BYTES_A_PIXEL = 16
_MEMORY_BESIDE = 512 * 1024 * 1024

# Pictures of more pixels take turns: 64 MB each while they are decoded, and twice that while they are converted.
LARGE_PIXELS = 16_000_000
_large = threading.Lock()

_PIXEL_BYTES = INPUT_SIZE * INPUT_SIZE * INPUT_CHANNELS
_LENGTH = struct.Struct("<Q")
_GO_ON = b"\n"


@dataclass(frozen=True)
class DecoderSettings:
    """How a child decodes."""

    preprocess: Preprocess
    max_pixels: int


class Decoded(NamedTuple):
    """A picture's size, upright, its (224, 224, 4) uint8 pixels, and the CPU seconds that it took."""

    width: int
    height: int
    pixels: NDArray[np.uint8]
    seconds: float


def decode_apart(data: bytes, settings: DecoderSettings) -> Decoded:
    """The pixels of an encoded image, by one of this process's children, which is started if all are busy.

    Raises:
        ImageError: with the reason; `timeout` or `decoder_crashed` if it took the child with it.
    """
    with _a_child(settings) as child:
        return child.decode(data)


class _Child:
    """A process that decodes one image after the other; one that ended is started anew with the next image."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        self._memory_file = os.memfd_create("mission9-pixels")
        os.ftruncate(self._memory_file, _PIXEL_BYTES)
        self._memory = mmap.mmap(self._memory_file, _PIXEL_BYTES)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> Decoded:
        """The pixels, copied: the next image takes their place."""
        process = self._process = self._process or self._start()
        try:
            _send(process, data)
            answer = self._answer(process)
            if answer.get("large"):
                with _large:
                    _send(process, _GO_ON)
                    answer = self._answer(process)
            return self._result(answer)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self._process = None
            raise self._fate(process) from error

    def _start(self) -> subprocess.Popen[bytes]:
        # From a bare checkout or an archive the child finds this package where its parent did.
        paths = [str(Path(mission9.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        arguments = [self._settings.preprocess, str(self._settings.max_pixels), str(self._memory_file)]
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", __name__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[self._memory_file],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            bufsize=0,
        )

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None  # noqa: S101 (for mypy)
        answer = b""
        while not answer.endswith(b"\n"):
            if not select.select([process.stdout], [], [], TIME_LIMIT + _PATIENCE)[0]:
                raise EOFError
            part = process.stdout.read(4096)
            if not part:
                raise EOFError
            answer += part
        found: dict[str, Any] = json.loads(answer)
        return found

    def _result(self, answer: dict[str, Any]) -> Decoded:
        if answer.get("reason") in REASONS:
            raise ImageError(answer["reason"], str(answer["message"]))
        return Decoded(int(answer["width"]), int(answer["height"]), _pixels(self._memory).copy(), float(answer["seconds"]))

    def _fate(self, process: subprocess.Popen[bytes]) -> ImageError:
        """What became of a child that no longer answers as it should; it is gone after that."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        hung = process.poll() is None or process.returncode == -signal.SIGALRM
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if hung:
            return ImageError("timeout", f"decoding took more than {TIME_LIMIT:g} s")
        code = process.returncode
        how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
        return ImageError("decoder_crashed", f"the decoder ended with: {how}{self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-1000:].decode(errors="replace").split("\n")
        self._errors.seek(0)
        self._errors.truncate()
        words = [line.strip() for line in lines if line.strip()]
        return f" ({words[-1][:200]})" if words else ""


def _pixels(memory: mmap.mmap) -> NDArray[np.uint8]:
    return np.frombuffer(memory, np.uint8).reshape(INPUT_SIZE, INPUT_SIZE, INPUT_CHANNELS)


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 (for mypy)
    rest = memoryview(_LENGTH.pack(len(data)) + data)
    while rest:
        rest = rest[process.stdin.write(rest) :]


@contextlib.contextmanager
def _a_child(settings: DecoderSettings) -> Iterator[_Child]:
    idle = _idle(settings, os.getpid())
    try:
        child = idle.get_nowait()
    except queue.Empty:
        child = _Child(settings)
    try:
        yield child
    finally:
        idle.put(child)


@cache
def _idle(settings: DecoderSettings, process: int) -> queue.SimpleQueue[_Child]:  # noqa: ARG001
    """The children that wait for work; those of a parent are not a forked process's."""
    return queue.SimpleQueue()


def _serve(settings: DecoderSettings, memory: mmap.mmap, requests: BinaryIO, answers: BinaryIO) -> None:
    """The child's work, until its parent is gone."""
    pixels = _pixels(memory)
    while (data := _received(requests)) is not None:
        start = time.process_time()
        # By default the signal ends the process, whatever it is busy with, and also if its parent has died.
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
        try:
            image = open_image(data, max_pixels=settings.max_pixels)
            if image.width * image.height > LARGE_PIXELS:
                signal.setitimer(signal.ITIMER_REAL, 0)
                _tell(answers, {"large": True})
                _received(requests)
                signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
            picture = to_picture(image)
            pixels[...] = to_input(picture, settings.preprocess)
            answer: dict[str, Any] = {"width": picture.width, "height": picture.height}
            answer["seconds"] = time.process_time() - start
        except ImageError as error:
            answer = {"reason": error.reason, "message": str(error)}
        except MemoryError:
            answer = {"reason": "out_of_memory", "message": "decoding took too much"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        _tell(answers, answer)


def _received(requests: BinaryIO) -> bytes | None:
    length = requests.read(_LENGTH.size)
    return requests.read(_LENGTH.unpack(length)[0]) if len(length) == _LENGTH.size else None


def _tell(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _limit(settings: DecoderSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, whose end ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    most = in_use + _MEMORY_BESIDE + _BYTES_A_PIXEL * settings.max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Called as `python -m mission9.stages.decode_apart PREPROCESS MAX_PIXELS MEMORY`."""
    how: Any = sys.argv[1]
    settings = DecoderSettings(how, int(sys.argv[2]))
    memory = mmap.mmap(int(sys.argv[3]), _PIXEL_BYTES)
    _limit(settings)
    _serve(settings, memory, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
