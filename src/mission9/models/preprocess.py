"""Convert a decoded picture to the pixels of the network's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.models.resize import CHANNELS, resize
from mission9.options import Preprocess

THUMBNAIL_SIDE = 64  # pixels, a multiple of a JPEG block: neighbours on a sheet do not blur into each other

# ImageNet's channel means and deviations of RGB in 0..1, as torchvision's weights expect them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Bytes per pixel in memory; the network ignores the last.
INPUT_CHANNELS = CHANNELS

# torchvision's recipe for IMAGENET1K_V2: shorter side to 232, then the middle 224.
CROP_RESIZE = 232


def to_input(image: Image.Image, how: Preprocess, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """An RGB picture as (224, 224, 4) uint8; normalisation is the engine's first step.

    The result is in `out`, if that is given, else it may be a view of the picture's memory; the fourth byte of each
    pixel has no meaning.
    `stretch` resizes both sides to 224, whatever the shape; `crop` resizes the shorter side to 232 and
    takes the middle. Both use Pillow's bilinear filter, which antialiases when it shrinks.
    """
    if how == "stretch":
        return resize(image, (INPUT_SIZE, INPUT_SIZE), out)
    pixels = _middle(image)
    if out is None:
        return pixels
    out[:] = pixels
    return out


def to_thumbnail(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The thumbnail of an RGB picture, (height, width, 4) uint8; the fourth byte is unused.

    `size` is that of the original, whose aspect ratio the thumbnail has.
    """
    return resize(image, thumbnail_size(*size))


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """The width and height of a picture's thumbnail; the longer side is `THUMBNAIL_SIDE`."""
    longest = max(width, height, 1)
    return max(1, round(THUMBNAIL_SIDE * width / longest)), max(1, round(THUMBNAIL_SIDE * height / longest))


def _middle(image: Image.Image) -> NDArray[np.uint8]:
    image = _not_too_long(image)
    width, height = image.size
    short = min(width, height)
    # torchvision truncates the longer side, and rounds the crop's corner.
    size = (CROP_RESIZE * width // short, CROP_RESIZE * height // short)
    left, top = round((size[0] - INPUT_SIZE) / 2), round((size[1] - INPUT_SIZE) / 2)
    return resize(image, size)[top : top + INPUT_SIZE, left : left + INPUT_SIZE]


def _not_too_long(image: Image.Image) -> Image.Image:
    """The middle of a picture that is more than eight times as long as wide.

    To resize 1 x 60,000 pixels to a shorter side of 232 would take gigabytes, for pixels that the crop discards.
    """
    width, height = image.size
    longest = 8 * min(width, height)
    if max(width, height) <= longest:
        return image
    longest += (max(width, height) - longest) % 2  # an even difference, to keep the crop centred
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))
