"""Memory for pixels that a decoder process shares with the processes that read them."""

from __future__ import annotations

import math
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from mission9.decoding.protocol import MAX_IMAGES, THUMBNAIL, DecoderSettings
from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.models.preprocess import INPUT_CHANNELS, THUMBNAIL_SIDE


def make_pixel_memory(settings: DecoderSettings, images: int = MAX_IMAGES) -> tuple[int, NDArray[np.uint8]]:
    """A file in memory for the pixels of so many images, and a view of them: (images, side, side, 4) uint8."""
    side = _side(settings)
    file = os.memfd_create("mission9-pixels")
    os.ftruncate(file, mmap.PAGESIZE + images * side * side * INPUT_CHANNELS)
    return file, view_pixel_memory(file, settings)


def view_pixel_memory(file: int, settings: DecoderSettings) -> NDArray[np.uint8]:
    """A view of the pixels in such a file: (images, side, side, 4) uint8; `Counters` are before them."""
    memory, side = mmap.mmap(file, os.fstat(file).st_size), _side(settings)
    place = side, side, INPUT_CHANNELS
    images = (len(memory) - mmap.PAGESIZE) // math.prod(place)
    pixels = np.frombuffer(memory, np.uint8, images * math.prod(place), offset=mmap.PAGESIZE)
    return pixels.reshape(images, *place)


def _side(settings: DecoderSettings) -> int:
    return THUMBNAIL_SIDE if settings.preprocess == THUMBNAIL else INPUT_SIZE
