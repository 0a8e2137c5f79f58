"""Resize pictures with Pillow's bilinear filter: by mission9-native where it is installed, else by Pillow itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

# Bytes per pixel in memory, Pillow's and the network's; the last has no meaning.
CHANNELS = 4

# Sizes, from and to, that decide which order of passes an implementation takes, and how it antialiases.
_PROBED = (((100, 100), (224, 224)), ((40, 90), (32, 30)), ((300, 200), (224, 224)), ((61, 300), (224, 232)))


def resize(picture: Image.Image, size: tuple[int, int], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Resize an RGB picture to a width and height, antialiased when it shrinks: (height, width, 4) uint8.

    The result is in `out`, if that is given; without a change of size, it may be a view of the picture's memory.
    """
    native = native_resize()
    if picture.size != size and native is not None:
        try:
            return _resize_natively(native, view(picture), size, out)
        except ValueError:  # Pillow keeps large pictures in several blocks of memory
            pass
    pixels = view(picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR))
    if out is None:
        return pixels
    out[:] = pixels
    return out


def view(picture: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an RGB picture as (height, width, 4) uint8, without a copy.

    Raises:
        ValueError: they are in several blocks of memory.
    """
    # Arrow's own to_numpy would import pandas, which takes seconds of a child's time limit for its first image.
    pixels = np.asarray(np.from_dlpack(pa.array(picture).values), np.uint8)
    return pixels.reshape(picture.height, picture.width, CHANNELS)


def as_picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """An RGB picture of (height, width, 4) uint8 pixels, without a copy."""
    memory = pa.Array.from_buffers(pa.uint8(), pixels.size, [None, pa.py_buffer(pixels)])
    return Image.fromarrow(memory, "RGB", (pixels.shape[1], pixels.shape[0]))


def _resize_natively(
    native: Callable[..., Any], pixels: NDArray[np.uint8], size: tuple[int, int], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    if out is None:
        out = np.empty((size[1], size[0], CHANNELS), np.uint8)
    native(pixels, (pixels.shape[1], pixels.shape[0]), out, size)
    return out


@cache
def native_resize() -> Callable[..., Any] | None:
    """The function of mission9-native; None if it is missing, or gives other pixels than this version of Pillow."""
    try:
        from mission9_native import resize as native
    except ImportError:
        return None
    for (width, height), size in _PROBED:
        noise = hashlib.shake_128(b"").digest(width * height * CHANNELS)
        pixels = np.frombuffer(noise, np.uint8).reshape(height, width, CHANNELS)
        right = view(as_picture(pixels).resize(size, Image.Resampling.BILINEAR))
        if not np.array_equal(_resize_natively(native, pixels, size)[..., :3], right[..., :3]):
            return None
    return native
