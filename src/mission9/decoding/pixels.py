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

from mission9.decoding.decode import open_image, reduce_jpeg, to_picture
from mission9.errors import SetupError
from mission9.models.preprocess import MEAN, to_input
from mission9.options import MAX_PIXELS, Decode, Preprocess


@cache
def pixels_digest(decode: Decode = "exact") -> str:
    """The SHA-256 of the network's input for each probe image in each preprocessing, as hexadecimal text.

    For `fast`, those of the JPEGs among them decoded at reduced size come on top.
    """
    digest = hashlib.sha256()
    probes = files("mission9") / "decoding" / "probe"
    for probe in sorted(probes.iterdir(), key=lambda file: file.name):
        for is_reduced in (False, True)[: 1 + (decode == "fast")]:
            image = open_image(probe.read_bytes(), max_pixels=MAX_PIXELS)
            if is_reduced:
                reduce_jpeg(image, 1)
            picture = to_picture(image)
            for how in get_args(Preprocess):
                # The fourth byte of a pixel has no meaning.
                digest.update(to_input(picture, how)[..., : len(MEAN)].tobytes())
    return digest.hexdigest()


@cache
def check_pixels(wanted: str, decode: Decode = "exact") -> None:
    """Check that this machine gives the same pixels as the one that started the run.

    Raises:
        SetupError: it does not.
    """
    if pixels_digest(decode) != wanted:
        raise SetupError(
            f"Pillow {PIL.__version__} on {socket.gethostname()} gives other pixels than that of the driver: install "
            "one version of Pillow on all machines"
        )
