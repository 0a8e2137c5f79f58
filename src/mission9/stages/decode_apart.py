"""Bytes -> the pixels that the network sees, in a child process.

A decoder that crashes, eats memory or never returns costs one image. The child answers in JSON and leaves pixels in
memory that both share, so that nothing it says is ever unpickled, even if an image took it over.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
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
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import mission9
from mission9.errors import REASONS, ImageError
from mission9.mobilenet_v2 import INPUT_SIZE
from mission9.preprocess import INPUT_CHANNELS, Preprocess, to_input
from mission9.stages.decode_image import open_image, to_picture

TIME_LIMIT = 10.0  # seconds for an image
_PATIENCE = 5.0  # more, for a child that does not even end itself

# Images decoded at one go. Waking a child for each would cost a tenth of the speed, and the pixels of more than these
# leave the processor's cache before the network sees them.
MOST_IMAGES = 32

# Pillow keeps 4 bytes a pixel, two such pictures while it converts, and with some formats a copy more; beside that,
# what the child holds from the start.
_BYTES_A_PIXEL = 16
_MEMORY_BESIDE = 512 * 1024 * 1024

# Pictures of more pixels take turns among the children of a process: 64 MB each while they are decoded, and twice that
# while they are converted.
LARGE_PIXELS = 16_000_000

_LENGTH = struct.Struct("<Q")


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


def decode_apart(images: Sequence[bytes], settings: DecoderSettings) -> list[Decoded | ImageError]:
    """The pixels of at most `MOST_IMAGES` encoded images, or the reason why there are none, in their order.

    They are decoded by one of this process's children, which is started if all are busy. An image that takes the child
    with it is `timeout` or `decoder_crashed`.
    """
    with _a_child(settings) as child:
        return child.decode(images)


class _Shared(NamedTuple):
    """What parent and child both see: the image in hand, whether it waits for its turn, and a place for each."""

    at: NDArray[np.int64]
    waiting: NDArray[np.int64]
    pixels: NDArray[np.uint8]

    @staticmethod
    def of(memory: mmap.mmap) -> _Shared:
        counters = np.frombuffer(memory, np.int64, 2)
        pixels = np.frombuffer(memory, np.uint8, offset=mmap.PAGESIZE)
        return _Shared(counters[:1], counters[1:], pixels.reshape(MOST_IMAGES, INPUT_SIZE, INPUT_SIZE, INPUT_CHANNELS))


_SHARED_BYTES = mmap.PAGESIZE + MOST_IMAGES * INPUT_SIZE * INPUT_SIZE * INPUT_CHANNELS


class _Child:
    """A process that decodes images; one that ended is started anew with the next."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        self._memory_file = os.memfd_create("mission9-pixels")
        os.ftruncate(self._memory_file, _SHARED_BYTES)
        self._shared = _Shared.of(mmap.mmap(self._memory_file, _SHARED_BYTES))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, images: Sequence[bytes]) -> list[Decoded | ImageError]:
        """An outcome for each; the pixels are copies, since the next images take their place."""
        process = self._process = self._process or self._start()
        if not images:
            return []
        self._shared.at[0] = 0
        try:
            _send(process, images)
            return self._outcomes(self._answers(process), len(images))
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            self._process = None
            culprit = min(max(int(self._shared.at[0]), 0), len(images) - 1)
            fate = self._fate(process)
        return [*self.decode(images[:culprit]), fate, *self.decode(images[culprit + 1 :])]

    def end(self) -> None:
        """Let the child end, which it does when nothing is left to read."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate()
        self._errors.close()

    def _start(self) -> subprocess.Popen[bytes]:
        # From a bare checkout or an archive the child finds this package where its parent did.
        paths = [str(Path(mission9.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        files = [self._memory_file, _turns(os.getpid())]
        arguments = [self._settings.preprocess, str(self._settings.max_pixels), *map(str, files)]
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", __name__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=files,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            bufsize=0,
        )

    def _answers(self, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        assert process.stdout is not None  # noqa: S101 (for mypy)
        told, seen = b"", 0
        while not told.endswith(b"\n"):
            if select.select([process.stdout], [], [], TIME_LIMIT + _PATIENCE)[0]:
                part = process.stdout.read(1 << 16)
                if not part:
                    raise EOFError
                told += part
            elif self._shared.at[0] == seen and not self._shared.waiting[0]:
                raise EOFError  # it has been at one image for longer than it allows itself
            seen = int(self._shared.at[0])
        answers: list[dict[str, Any]] = json.loads(told)
        return answers

    def _outcomes(self, answers: list[dict[str, Any]], images: int) -> list[Decoded | ImageError]:
        if len(answers) != images:
            raise ValueError(f"{len(answers)} answers for {images} images")
        pixels = self._shared.pixels[:images].copy()
        return [_outcome(answer, place) for answer, place in zip(answers, pixels, strict=True)]

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


def _send(process: subprocess.Popen[bytes], images: Sequence[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 (for mypy)
    lengths = b"".join(map(_LENGTH.pack, (len(images), *map(len, images))))
    for part in (lengths, *images):
        rest = memoryview(part)
        while rest:
            rest = rest[process.stdin.write(rest) :]


@contextlib.contextmanager
def _a_child(settings: DecoderSettings) -> Iterator[_Child]:
    idle = _idle.setdefault((settings, os.getpid()), queue.SimpleQueue())
    try:
        child = idle.get_nowait()
    except queue.Empty:
        child = _Child(settings)
    try:
        yield child
    finally:
        idle.put(child)


# The children that wait for work; a forked process does not take its parent's.
_idle: dict[tuple[DecoderSettings, int], queue.SimpleQueue[_Child]] = {}


@atexit.register
def _end_children() -> None:
    for (_, process), idle in _idle.items():
        while process == os.getpid() and not idle.empty():
            idle.get().end()


@cache
def _turns(process: int) -> int:  # noqa: ARG001
    """A file for the children of a process to lock, who decode large pictures one after the other."""
    return os.memfd_create("mission9-turns")


class _Server:
    """The child's side."""

    def __init__(self, settings: DecoderSettings, memory: int, turns: int) -> None:
        self._settings = settings
        self._shared = _Shared.of(mmap.mmap(memory, _SHARED_BYTES))
        self._turns = Path(f"/proc/self/fd/{turns}").open("rb")  # noqa: SIM115 - opened anew, so that locks exclude

    def serve(self, requests: BinaryIO, answers: BinaryIO) -> None:
        """Answer until the parent is gone."""
        while count := _number(requests):
            lengths = [_number(requests) for _ in range(count)]
            # Read one by one, so that not all are in memory.
            told = [self._answer(at, requests.read(length)) for at, length in enumerate(lengths)]
            answers.write(json.dumps(told).encode() + b"\n")
            answers.flush()

    def _answer(self, at: int, data: bytes) -> dict[str, Any]:
        start = time.process_time()
        self._shared.at[0] = at
        # By default the signal ends the process, whatever it is busy with, and also if its parent has died.
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
        try:
            image = open_image(data, max_pixels=self._settings.max_pixels)
            with self._turn(image):
                picture = to_picture(image)
                self._shared.pixels[at] = to_input(picture, self._settings.preprocess)
            return {"width": picture.width, "height": picture.height, "seconds": time.process_time() - start}
        except ImageError as error:
            return {"reason": error.reason, "message": str(error)}
        except MemoryError:
            return {"reason": "out_of_memory", "message": "decoding took too much"}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextlib.contextmanager
    def _turn(self, image: Image.Image) -> Iterator[None]:
        if image.width * image.height <= LARGE_PIXELS:
            yield
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._shared.waiting[0] = 1
        fcntl.flock(self._turns, fcntl.LOCK_EX)
        self._shared.waiting[0] = 0
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
        try:
            yield
        finally:
            fcntl.flock(self._turns, fcntl.LOCK_UN)


def _number(requests: BinaryIO) -> int:
    """The next number; 0 where the parent is gone."""
    data = requests.read(_LENGTH.size)
    return int(_LENGTH.unpack(data)[0]) if len(data) == _LENGTH.size else 0


def _limit(settings: DecoderSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, whose end ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    most = in_use + _MEMORY_BESIDE + _BYTES_A_PIXEL * settings.max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Called as `python -m mission9.stages.decode_apart PREPROCESS MAX_PIXELS MEMORY TURNS`."""
    how: Any = sys.argv[1]
    settings = DecoderSettings(how, int(sys.argv[2]))
    server = _Server(settings, int(sys.argv[3]), int(sys.argv[4]))
    _limit(settings)
    server.serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
