"""The child's side of `decode_apart`: encoded images come in, pixels go into memory that the parent sees."""

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

# Images decoded at one go. Waking a child for each would cost a tenth of the speed, and the pixels of more than these
# leave the processor's cache before the network sees them.
MAX_IMAGES = 32

# Pillow keeps 4 bytes a pixel, two such pictures while it converts, and with some formats a copy more; beside that,
# what the child holds from the start.
_BYTES_A_PIXEL = 16
_MEMORY_BESIDE = 512 * 1024 * 1024

# Pictures of more pixels take turns among the children of a process: 64 MB each while they are decoded, and twice that
# while they are converted.
LARGE_PIXELS = 16_000_000

# Bytes that one text of a PNG may inflate to; an editor's history with the picture's orientation takes megabytes. All
# together may take four times as many, Pillow's own bound.
_MAX_TEXT = 16 * 1024 * 1024

# Every number on the way to the child: how many images there are, then the length of each.
NUMBER = struct.Struct("<Q")

READY = b"ready\n"  # a child's first word

# What a child may write to a file, which is its last words: libtiff has some for each line of a damaged picture.
_MAX_WORDS = 1024 * 1024


@dataclass(frozen=True)
class DecoderSettings:
    """The settings of a child: pixels for the network, or thumbnails."""

    preprocess: Preprocess | Literal["thumbnail"]
    max_pixels: int

    @property
    def side(self) -> int:
        """Pixels that an image's place in memory has a side."""
        return THUMBNAIL_SIDE if self.preprocess == THUMBNAIL else INPUT_SIZE

    def to_pixels(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Return what of a decoded picture goes into its place."""
        return to_thumbnail(picture) if self.preprocess == THUMBNAIL else to_input(picture, self.preprocess)


class Shared(NamedTuple):
    """Memory that parent and child share: the image in hand, whether it waits for its turn, and a place for each."""

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
        self._turns = Path(f"/proc/self/fd/{turns}").open("rb")  # noqa: SIM115 - opened anew, so that locks exclude

    def serve(self, requests: BinaryIO, answers: BinaryIO) -> None:
        """Answer until the parent is gone."""
        answers.write(READY)
        answers.flush()
        while count := _number(requests):
            lengths = [_number(requests) for _ in range(count)]
            # Read one by one, so that not all are in memory.
            told = [self._answer(at, requests.read(length)) for at, length in enumerate(lengths)]
            _forget_words()
            answers.write(json.dumps(told).encode() + b"\n")
            answers.flush()

    def _answer(self, at: int, data: bytes) -> dict[str, Any]:
        start = time.process_time()
        self._shared.at[0] = at
        # By default the signal ends the process, whatever it is busy with, and also if its parent has died.
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
            return {"reason": "out_of_memory", "message": "decoding took too much"}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _opened(self, data: bytes) -> Image.Image:
        image = open_image(data, max_pixels=self._settings.max_pixels)
        if self._settings.preprocess == THUMBNAIL:
            image.draft(None, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))  # of a large JPEG, no more than it takes
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
    """Empty the file that stderr goes to: what images that did no harm made libraries say is nobody's last words."""
    with contextlib.suppress(OSError):  # stderr is no file, where somebody runs this by hand
        os.ftruncate(sys.stderr.fileno(), 0)
        os.lseek(sys.stderr.fileno(), 0, os.SEEK_SET)


def _number(requests: BinaryIO) -> int:
    """The next number; 0 where the parent is gone."""
    data = requests.read(NUMBER.size)
    return int(NUMBER.unpack(data)[0]) if len(data) == NUMBER.size else 0


def _limit(settings: DecoderSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, whose end ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_WORDS, _MAX_WORDS))
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    most = in_use + _MEMORY_BESIDE + _BYTES_A_PIXEL * settings.max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Called as `python -m mission9.decoding.worker PREPROCESS MAX_PIXELS MEMORY TURNS`."""
    how: Any = sys.argv[1]
    settings = DecoderSettings(how, int(sys.argv[2]))
    PngImagePlugin.MAX_TEXT_CHUNK = _MAX_TEXT
    server = Server(settings, int(sys.argv[3]), int(sys.argv[4]))
    _limit(settings)
    server.serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
