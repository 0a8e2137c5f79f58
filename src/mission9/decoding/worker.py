"""The child's side of `decode_apart`: encoded images come in, pixels go to memory shared with the parent."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import mmap
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from mission9.decoding.decode import open_image, to_picture
from mission9.errors import ImageError
from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.models.preprocess import INPUT_CHANNELS, THUMBNAIL_SIDE, to_input, to_thumbnail
from mission9.options import Preprocess

THUMBNAIL: Literal["thumbnail"] = "thumbnail"

TIME_LIMIT = 10.0  # seconds for an image

# Images in a batch. Waking a child for each image would cost a tenth of the speed, and the pixels of larger batches
# leave the processor's cache before the network reads them.
MAX_IMAGES = 32

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

# Every number sent to the child: the count of images, then the length of each.
NUMBER = struct.Struct("<Q")

READY = b"ready\n"  # a child's first line

# The limit in bytes of a child's stderr file: libtiff writes messages for each line of a damaged picture.
_MAX_WORDS = 1024 * 1024


@dataclass(frozen=True)
class DecoderSettings:
    """The settings of a child: pixels for the network, or thumbnails."""

    preprocess: Preprocess | Literal["thumbnail"]
    max_pixels: int

    @property
    def side(self) -> int:
        """The side of an image's slot in shared memory, in pixels."""
        return THUMBNAIL_SIDE if self.preprocess == THUMBNAIL else INPUT_SIZE

    def to_pixels(self, picture: Image.Image) -> NDArray[np.uint8]:
        """The pixels of a decoded picture for its slot."""
        return to_thumbnail(picture) if self.preprocess == THUMBNAIL else to_input(picture, self.preprocess)


class Shared(NamedTuple):
    """Memory shared by parent and child: the current image, True while it waits for its turn, and a slot an image."""

    at: NDArray[np.int64]
    waiting: NDArray[np.int64]
    pixels: NDArray[np.uint8]

    @staticmethod
    def of(memory: mmap.mmap, side: int) -> Shared:
        counters = np.frombuffer(memory, np.int64, 2)
        places = MAX_IMAGES, side, side, INPUT_CHANNELS
        pixels = np.frombuffer(memory, np.uint8, math.prod(places), offset=mmap.PAGESIZE)
        return Shared(counters[:1], counters[1:], pixels.reshape(places))


SHARED_BYTES = mmap.PAGESIZE + MAX_IMAGES * INPUT_SIZE * INPUT_SIZE * INPUT_CHANNELS


class Server:
    """The child's side."""

    def __init__(self, settings: DecoderSettings, memory: int, turns: int) -> None:
        self._settings = settings
        self._shared = Shared.of(mmap.mmap(memory, SHARED_BYTES), settings.side)
        self._turns = Path(f"/proc/self/fd/{turns}").open("rb")  # noqa: SIM115 - reopened, so that locks exclude

    def serve(self, requests: BinaryIO, answers: BinaryIO) -> None:
        """Answer requests until the parent is gone."""
        answers.write(READY)
        answers.flush()
        while count := _number(requests):
            lengths = [_number(requests) for _ in range(count)]
            # Read one at a time, so that they are not all in memory.
            told = [self._answer(at, requests.read(length)) for at, length in enumerate(lengths)]
            _forget_words()
            answers.write(json.dumps(told).encode() + b"\n")
            answers.flush()

    def _answer(self, at: int, data: bytes) -> dict[str, Any]:
        start = time.process_time()
        self._shared.at[0] = at
        # By default the signal ends the process, even in C code, and even if its parent has died.
        signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
        try:
            image = self._opened(data)
            with self._turn(image):
                picture = to_picture(image)
                pixels = self._settings.to_pixels(picture)
                self._shared.pixels[at, : pixels.shape[0], : pixels.shape[1]] = pixels
            return {"width": picture.width, "height": picture.height, "seconds": time.process_time() - start}
        except ImageError as error:
            return {"reason": error.reason, "message": str(error)}
        except MemoryError:
            return {"reason": "out_of_memory", "message": "decoding exceeded the memory limit"}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _opened(self, data: bytes) -> Image.Image:
        image = open_image(data, max_pixels=self._settings.max_pixels)
        if self._settings.preprocess == THUMBNAIL:
            image.draft(None, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))  # a large JPEG is decoded at reduced size
        return image

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


def _forget_words() -> None:
    """Empty the stderr file: messages about harmless images must not be reported after a later crash."""
    with contextlib.suppress(OSError):  # stderr is not a file when the module is run by hand
        os.ftruncate(sys.stderr.fileno(), 0)
        os.lseek(sys.stderr.fileno(), 0, os.SEEK_SET)


def _number(requests: BinaryIO) -> int:
    """The next number; 0 if the parent is gone."""
    data = requests.read(NUMBER.size)
    return int(NUMBER.unpack(data)[0]) if len(data) == NUMBER.size else 0


def _limit(settings: DecoderSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_WORDS, _MAX_WORDS))
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    most = in_use + _MEMORY_BESIDE + _BYTES_A_PIXEL * settings.max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Run `python -m mission9.decoding.worker PREPROCESS MAX_PIXELS MEMORY TURNS`."""
    how: Any = sys.argv[1]
    settings = DecoderSettings(how, int(sys.argv[2]))
    PngImagePlugin.MAX_TEXT_CHUNK = _MAX_TEXT
    server = Server(settings, int(sys.argv[3]), int(sys.argv[4]))
    _limit(settings)
    server.serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
