"""The messages between this process, its reader processes and their decoder processes; light enough for all of them.

A reader opens files and hashes them, but parses no image. A decoder, which parses images, sees only the bytes of images
and memory for pixels. Its answers are fixed records, of which nothing is ever unpickled, even if an image has taken it
over.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from mission9.options import Decode, Preprocess

THUMBNAIL: Literal["thumbnail"] = "thumbnail"

# Images in a message. To wake a process for each image would cost a tenth of the speed, and the pixels of larger
# batches leave the processor's cache before the network reads them.
MAX_IMAGES = 32

TIME_LIMIT = 10.0  # seconds for an image

READY = b"ready\n"  # a process's first line
START_LIMIT = 120.0  # seconds for a process to start, on a busy machine
LOOK = 1.0  # seconds between checks of a process; a check that takes longer shows that this process was stopped

NUMBER = struct.Struct("<Q")

# To a decoder: how many images, and the place in the memory of the first; then the length of each, then all bytes.
TO_DECODE = struct.Struct("<QQ")

# From a decoder, after the length of all: an image's width, height, CPU seconds, reason (0, or 1 and its place in
# REASONS), and the length of a message, which follows.
DECODED = struct.Struct("<IIfHH")
MAX_MESSAGE = 1000  # bytes

# To a reader: how many images, and the place in the memory of the first; then for each image whether its bytes follow,
# else its path does, and their length; then all bytes.
TO_READ = struct.Struct("<QQ")
FILE = struct.Struct("<?Q")

# From a reader: how many images, CPU seconds for reading and decoding, and the length of a JSON text; a record for each
# image: width, height, size (-1: unread), SHA-256 digest; then the text: rejects, and a failure of the reader itself.
HAS_READ = struct.Struct("<QddQ")
RECORD = struct.Struct("<iiq32s")


@dataclass(frozen=True)
class DecoderSettings:
    """The settings of a decoder: pixels for the network, or thumbnails."""

    preprocess: Preprocess | Literal["thumbnail"]
    max_pixels: int
    decode: Decode = "exact"

    @property
    def arguments(self) -> list[str]:
        """The settings as words of a command."""
        return [self.preprocess, str(self.max_pixels), self.decode]

    @staticmethod
    def of(arguments: Sequence[Any]) -> DecoderSettings:
        """The settings in the first words of a command."""
        preprocess, max_pixels, decode = arguments[:3]
        return DecoderSettings(preprocess, int(max_pixels), decode)


class Counters:
    """Two numbers in the first page of shared memory: the current image, and 1 while the decoder waits for its turn."""

    def __init__(self, memory_file: int) -> None:
        self._memory = mmap.mmap(memory_file, mmap.PAGESIZE)
        self._numbers = memoryview(self._memory)[:16].cast("q")

    @property
    def at(self) -> int:
        return self._numbers[0]

    @at.setter
    def at(self, value: int) -> None:
        self._numbers[0] = value

    @property
    def waits(self) -> bool:
        return bool(self._numbers[1])

    @waits.setter
    def waits(self, value: bool) -> None:
        self._numbers[1] = value


def read_numbers(stream: BinaryIO, layout: struct.Struct) -> tuple[int, ...] | None:
    """The next numbers of a stream; None if its other end is gone."""
    data = stream.read(layout.size)
    return layout.unpack(data) if len(data) == layout.size else None


def write_all(file: int, data: bytes) -> None:
    """Write all bytes to a pipe."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
