"""Convert a decoded picture to the pixels of the network's input."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.options import Preprocess

THUMBNAIL_SIDE = 64  # pixels, a multiple of a JPEG block: neighbours on a sheet do not blur into each other

# ImageNet's channel means and deviations of RGB in 0..1, as torchvision's weights expect them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Bytes per pixel in memory; the network ignores the last.
INPUT_CHANNELS = 4

# torchvision's recipe for IMAGENET1K_V2: shorter side to 232, then the middle 224.
CROP_RESIZE = 232


def to_input(image: Image.Image, how: Preprocess) -> NDArray[np.uint8]:
    """An RGB picture as (224, 224, 4) uint8; normalisation is the engine's first step.

    The array is a view of Pillow's memory, without a copy; the fourth byte of each pixel has no meaning.
    `stretch` resizes both sides to 224, whatever the shape; `crop` resizes the shorter side to 232 and
    takes the middle. Both use Pillow's bilinear filter, which antialiases when it shrinks.
    """
    if how == "crop":
        image = _middle(image)
    elif image.size != (INPUT_SIZE, INPUT_SIZE):
        image = image.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR)
    return _pixels(image)


def to_thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    """The thumbnail of an RGB picture in its own aspect ratio, (height, width, 4) uint8; the fourth byte is unused."""
    return _pixels(image.resize(thumbnail_size(*image.size), Image.Resampling.BILINEAR))


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """The width and height of a picture's thumbnail; the longer side is `THUMBNAIL_SIDE`."""
    longest = max(width, height, 1)
    return max(1, round(THUMBNAIL_SIDE * width / longest)), max(1, round(THUMBNAIL_SIDE * height / longest))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    # Arrow's own to_numpy would import pandas, which takes seconds of a child's time limit for its first image.
    pixels = np.asarray(np.from_dlpack(pa.array(image).values), np.uint8)
    return pixels.reshape(image.height, image.width, INPUT_CHANNELS)


def _middle(image: Image.Image) -> Image.Image:
    image = _not_too_long(image)
    width, height = image.size
    short = min(width, height)
    # torchvision truncates the longer side, and rounds the crop's corner.
    size = (CROP_RESIZE * width // short, CROP_RESIZE * height // short)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - INPUT_SIZE) / 2), round((size[1] - INPUT_SIZE) / 2)
    return image.crop((left, top, left + INPUT_SIZE, top + INPUT_SIZE))


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
