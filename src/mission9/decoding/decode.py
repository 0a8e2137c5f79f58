"""Bytes -> an RGB picture, or the reason for a reject. Pure: no files."""

from __future__ import annotations

import io
import struct
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from mission9.decoding.formats import parsers_for, unidentified
from mission9.decoding.plain_jpeg import decode_plain_jpeg, is_upright, orientation
from mission9.decoding.png_chunks import PNG_SIGNATURE, without_ornament
from mission9.errors import ImageError
from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.models.preprocess import CROP_RESIZE
from mission9.options import Preprocess

# Pillow decodes these in Python, and fills in the missing bytes of a truncated file one by one, for seconds.
_SLOW_CODECS = ("bmp_rle",)
_MAX_SLOW_PIXELS = 10_000_000

_ON_ITS_SIDE = (5, 6, 7, 8)  # values of EXIF's orientation

_WHITE = (255, 255, 255, 255)
_STRIP_PIXELS = 1_000_000


def decode_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """The whole first frame as an upright RGB picture: EXIF orientation applied, transparency over white.

    Raises:
        ImageError: the image is rejected.
    """
    return to_picture(open_image(data, max_pixels=max_pixels))


def open_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """Open an image by its header, without decoding pixels.

    Raises:
        ImageError: it is not an image, or too large.
    """
    if not data:
        raise ImageError("empty", "the file is empty")
    image = _open(data)
    is_slow = any(tile.codec_name in _SLOW_CODECS for tile in getattr(image, "tile", ()))
    most = min(max_pixels, _MAX_SLOW_PIXELS) if is_slow else max_pixels
    if image.width * image.height > most:
        raise ImageError("too_many_pixels", f"{image.width} x {image.height} exceeds the limit of {most} pixels")
    return image


def fast_side(preprocess: Preprocess) -> int:
    """The side in pixels that a JPEG keeps at least when it is decoded fast: twice that of the resize after it.

    With half of that, the mean cosine to exact features is 0.9992 instead of 0.9999. With twice that, decoding takes
    1.3 times as long (benchmarks/measure/photographs.py).
    """
    return 2 * (CROP_RESIZE if preprocess == "crop" else INPUT_SIZE)


def reduce_jpeg(image: Image.Image, side: int) -> tuple[int, int] | None:
    """Let a large JPEG be decoded at a half, a quarter or an eighth, at least `side` pixels wide and high.

    Its own width and height, once it is upright, are returned; None if the image is decoded as it is.
    """
    if not isinstance(image, JpegImageFile) or min(image.size) < 2 * side:
        return None
    width, height = image.size
    image.draft(None, (side, side))
    return (height, width) if orientation(image) in _ON_ITS_SIDE else (width, height)


def to_picture(image: Image.Image) -> Image.Image:
    """Decode an image from `open_image`, converted by `to_rgb`.

    Raises:
        ImageError: the image is rejected.
    """
    try:
        plain = decode_plain_jpeg(image)
        if plain is not None:
            return plain
        _load(image)
        return to_rgb(image)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("out_of_memory", f"{image.width} x {image.height} pixels exceed the memory limit") from error
    except Exception as error:  # decoders raise any kind of exception on damaged data
        raise _decode_error(error) from error


def _load(image: Image.Image) -> None:
    declared = image.size
    image.load()
    if image.width * image.height > declared[0] * declared[1]:  # of which the limit of pixels was checked
        raise ImageError("corrupt", f"it has {image.width} x {image.height} pixels, not {declared[0]} x {declared[1]}")


def _open(data: bytes) -> Image.Image:
    if data.startswith(PNG_SIGNATURE):
        data = without_ornament(data)
    parsers = parsers_for(data)
    try:
        return Image.open(io.BytesIO(data), formats=parsers)
    except UnidentifiedImageError as error:
        raise unidentified(data) from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except Exception as error:
        raise _decode_error(error) from error


def _decode_error(error: Exception) -> ImageError:
    text = str(error) or type(error).__name__
    says_so = any(words in text.lower() for words in ("truncated", "end of file"))
    cut_short = says_so or isinstance(error, EOFError | struct.error)
    return ImageError("truncated" if cut_short else "corrupt", text.splitlines()[0][:200])


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as upright RGB: EXIF orientation applied, deep grey scaled, transparency over white.

    A BMP that is transparent everywhere is treated as opaque, as other programs do.

    Raises:
        ImageError: every pixel of another format's picture is transparent.
    """
    is_bmp = image.format == "BMP"
    image = _upright(image)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_bytes(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    result, is_seen = _over_white(image.convert("LA") if image.mode == "La" else image)
    if is_seen:
        return result
    if is_bmp:
        return image.convert("RGB")
    raise ImageError("transparent", "every pixel is transparent")


def _upright(image: Image.Image) -> Image.Image:
    try:
        # Pillow would copy a picture that is upright already.
        return image if is_upright(image) else ImageOps.exif_transpose(image)
    except Exception:  # broken metadata says nothing about the picture
        return image


def _over_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """A picture with transparency over white, and True if any pixel is visible."""
    result, is_seen = Image.new("RGB", image.size), False
    for top, bottom in _strips(image):
        strip = image.crop((0, top, image.width, bottom)).convert("RGBA")
        is_seen = is_seen or strip.getchannel("A").getbbox() is not None
        result.paste(Image.alpha_composite(Image.new("RGBA", strip.size, _WHITE), strip).convert("RGB"), (0, top))
    return result, is_seen


def _strips(image: Image.Image) -> list[tuple[int, int]]:
    """First and last rows of strips of about a million pixels, so that conversions need little memory at a time."""
    bounds = [*range(0, image.height, max(1, _STRIP_PIXELS // image.width)), image.height]
    return list(pairwise(bounds))


def _to_bytes(image: Image.Image) -> NDArray[np.uint8]:
    """Deep grey pixels scaled to 0..255; Pillow's own conversion would clip 16-bit pictures to plain white.

    The range is that of the mode or, for 32 bits, the smallest usual one that holds the values: 0..1 (floats),
    0..255, 0..65535, else the picture's own.
    """
    pixels = np.asarray(image)
    strips = [slice(*strip) for strip in _strips(image)]
    low, high = 0.0, 65535.0
    if not image.mode.startswith("I;16"):
        smallest = min(float(_finite(pixels[strip]).min()) for strip in strips)
        largest = max(float(_finite(pixels[strip]).max()) for strip in strips)
        limits = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        fitting = [limit for limit in limits if largest <= limit] if smallest >= 0 else []
        low, high = (0.0, fitting[0]) if fitting else (smallest, largest)
    scale = 255.0 / max(high - low, np.finfo(np.float64).tiny)
    result = np.empty(pixels.shape, np.uint8)
    for strip in strips:
        result[strip] = np.rint((_finite(pixels[strip]) - low) * scale).astype(np.uint8)
    return result


def _finite(pixels: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0)
