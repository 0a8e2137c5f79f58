"""A decoder process: encoded images come in, pixels go to memory shared with others (`protocol`)."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from mission9.decoding.decode import fast_side, open_image, reduce_jpeg, to_picture
from mission9.decoding.formats import load_decoders
from mission9.decoding.pixel_memory import view_pixel_memory
from mission9.decoding.protocol import (
    DECODED,
    MAX_MESSAGE,
    NUMBER,
    READY,
    THUMBNAIL,
    TIME_LIMIT,
    TO_DECODE,
    Counters,
    DecoderSettings,
    read_numbers,
)
from mission9.errors import REASONS, ImageError, Reason
from mission9.models.preprocess import THUMBNAIL_SIDE, to_input, to_thumbnail
from mission9.models.resize import native_resize

# Pillow uses 4 bytes a pixel, two such pictures during a conversion, and with some formats one more copy; in addition,
# the memory that the child uses from the start.
_BYTES_A_PIXEL = 16
_MEMORY_BESIDE = 512 * 1024 * 1024

# Children of a process decode larger pictures one at a time: each takes 64 MB while it is decoded, and twice that while
# it is converted.
LARGE_PIXELS = 16_000_000

# The limit in bytes of one inflated PNG text; an editor's history, next to the orientation, takes megabytes. All texts
# together may take four times as much, Pillow's own limit.
_MAX_TEXT = 16 * 1024 * 1024

# The limit in bytes of a child's stderr file: libtiff writes messages for each line of a damaged picture.
_MAX_WORDS = 1024 * 1024


class Server:
    """Answers requests with one memory for pixels."""

    def __init__(self, settings: DecoderSettings, memory: int, turns: int) -> None:
        self._settings = settings
        self._counters = Counters(memory)
        self._pixels = view_pixel_memory(memory, settings)
        self._turns = Path(f"/proc/self/fd/{turns}").open("rb")  # noqa: SIM115 - reopened, so that locks exclude

    def serve(self, requests: BinaryIO, answers: BinaryIO) -> None:
        """Answer requests until the parent is gone."""
        answers.write(READY)
        answers.flush()
        while header := read_numbers(requests, TO_DECODE):
            count, first = header
            lengths = [read_numbers(requests, NUMBER) for _ in range(count)]
            # Read one at a time, so that they are not all in memory.
            told = [self._answer(at, first, requests.read(length[0])) for at, length in enumerate(lengths) if length]
            _forget_words()
            answers.write(NUMBER.pack(sum(map(len, told))) + b"".join(told))
            answers.flush()

    def _answer(self, at: int, first: int, data: bytes) -> bytes:
        start = time.process_time()
        self._counters.at = at
        # By default the signal ends the process, even in C code, and even if its parent has died.
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
        try:
            image = open_image(data, max_pixels=self._settings.max_pixels)
            size = self._reduce(image)
            with self._turn(image):
                picture = to_picture(image)
                size = size or picture.size
                self._write_pixels(picture, size, self._pixels[first + at])
            return DECODED.pack(*size, time.process_time() - start, 0, 0)
        except ImageError as error:
            return _rejection(error.reason, str(error))
        except MemoryError:
            return _rejection("out_of_memory", "decoding exceeded the memory limit")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _reduce(self, image: Image.Image) -> tuple[int, int] | None:
        if self._settings.preprocess == THUMBNAIL:
            return reduce_jpeg(image, THUMBNAIL_SIDE)
        if self._settings.decode == "fast":
            return reduce_jpeg(image, fast_side(self._settings.preprocess))
        return None

    def _write_pixels(self, picture: Image.Image, size: tuple[int, int], place: NDArray[np.uint8]) -> None:
        if self._settings.preprocess != THUMBNAIL:
            to_input(picture, self._settings.preprocess, place)
            return
        pixels = to_thumbnail(picture, size)
        place[: pixels.shape[0], : pixels.shape[1]] = pixels

    @contextlib.contextmanager
    def _turn(self, image: Image.Image) -> Iterator[None]:
        if image.width * image.height <= LARGE_PIXELS:
            yield
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._counters.waits = True
        fcntl.flock(self._turns, fcntl.LOCK_EX)
        self._counters.waits = False
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
        try:
            yield
        finally:
            fcntl.flock(self._turns, fcntl.LOCK_UN)


def _rejection(reason: Reason, message: str) -> bytes:
    words = message.encode()[:MAX_MESSAGE].decode(errors="ignore").encode()  # cut between characters
    return DECODED.pack(0, 0, 0, 1 + REASONS.index(reason), len(words)) + words


def _forget_words() -> None:
    """Empty the stderr file: messages about harmless images must not be reported after a later crash."""
    with contextlib.suppress(OSError):  # stderr is not a file when the module is run by hand
        os.ftruncate(sys.stderr.fileno(), 0)
        os.lseek(sys.stderr.fileno(), 0, os.SEEK_SET)


def _limit(settings: DecoderSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_WORDS, _MAX_WORDS))
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    most = in_use + _MEMORY_BESIDE + _BYTES_A_PIXEL * settings.max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Run `python -m mission9.decoding.worker PREPROCESS MAX_PIXELS DECODE MEMORY TURNS`."""
    settings, (memory, turns) = DecoderSettings.of(sys.argv[1:]), map(int, sys.argv[4:])
    PngImagePlugin.MAX_TEXT_CHUNK = _MAX_TEXT
    server = Server(settings, memory, turns)
    native_resize()  # which it takes a moment to choose
    load_decoders()
    _limit(settings)
    server.serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
