"""The identity of the pixels that this installation gives for an image.

Versions of Pillow, and of the libraries that it contains, differ in some pixels of some images: one takes the vertical
pass of a resize first, another the horizontal one. Features of different pixels must not share a table.
"""

from __future__ import annotations

import hashlib
import socket
from functools import cache
from importlib.resources import files
from typing import get_args

import PIL

from mission9.decoding.decode import decode_image
from mission9.errors import SetupError
from mission9.models.preprocess import MEAN, to_input
from mission9.options import MAX_PIXELS, Preprocess


@cache
def pixels_digest() -> str:
    """The SHA-256 of the network's input for each probe image in each preprocessing, as hexadecimal text."""
    digest = hashlib.sha256()
    probes = files("mission9") / "decoding" / "probe"
    for probe in sorted(probes.iterdir(), key=lambda file: file.name):
        picture = decode_image(probe.read_bytes(), max_pixels=MAX_PIXELS)
        for how in get_args(Preprocess):
            # The fourth byte of a pixel has no meaning.
            digest.update(to_input(picture, how)[..., : len(MEAN)].tobytes())
    return digest.hexdigest()


@cache
def check_pixels(wanted: str) -> None:
    """Check that this machine gives the same pixels as the one that started the run.

    Raises:
        SetupError: it does not.
    """
    if pixels_digest() != wanted:
        raise SetupError(
            f"Pillow {PIL.__version__} on {socket.gethostname()} gives other pixels than that of the driver: install "
            "one version of Pillow on all machines"
        )
