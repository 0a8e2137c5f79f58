"""Encoded images -> pixels, decoded in a child process of this one."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mission9.decoding.decoder_process import Decoder, turns_file
from mission9.decoding.pixel_memory import make_pixel_memory
from mission9.decoding.protocol import DecoderSettings
from mission9.errors import ImageError


class Decoded(NamedTuple):
    """A picture's upright size, and its (224, 224, 4) uint8 pixels.

    A thumbnail occupies the upper left of (64, 64, 4).
    """

    width: int
    height: int
    pixels: NDArray[np.uint8]


def decode_apart(images: Sequence[bytes], settings: DecoderSettings) -> list[Decoded | ImageError]:
    """The pixels of at most `MAX_IMAGES` encoded images, or the reason for each reject, in order.

    One of this process's children decodes them; another is started if all are busy. An image that kills the child is
    rejected as `timeout` or `decoder_crashed`.
    """
    with _a_child(settings) as child:
        found = child.decoder.decode(images)
        pixels = child.pixels[: len(images)].copy()  # the next images overwrite them
    return [
        outcome if isinstance(outcome, ImageError) else Decoded(outcome.width, outcome.height, place)
        for outcome, place in zip(found, pixels, strict=True)
    ]


class _Child:
    def __init__(self, settings: DecoderSettings) -> None:
        memory_file, self.pixels = make_pixel_memory(settings)
        self.decoder = Decoder(settings, memory_file, turns_file(os.getpid()))


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
        child.decoder.kill()  # a pending answer must not be taken for the next images'
        raise
    finally:
        idle.put(child)


# Idle children; a forked process does not inherit its parent's.
_idle: dict[tuple[DecoderSettings, int], queue.SimpleQueue[_Child]] = {}


@atexit.register
def _end_children() -> None:
    for (_, process), idle in _idle.items():
        while process == os.getpid() and not idle.empty():
            idle.get().decoder.end()
