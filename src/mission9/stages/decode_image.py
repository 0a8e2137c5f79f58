"""Bytes -> an RGB picture, or the reason why not. Pure; no files."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mission9.errors import ImageError

# Pillow's own limit against decompression bombs (Image.MAX_IMAGE_PIXELS): a quarter GiB of 24-bit pixels. It refuses
# twice as many whatever we say.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3

# Parsers that Pillow may use. Others, such as EPS, which starts a program, never see a byte.
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# How files of other formats begin, after so many bytes: told by name, and never parsed.
_OTHER_FORMATS = (
    (0, b"%!PS", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"DDS ", "DDS"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"<svg", "SVG"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    *((0, b"P%d" % number, "PPM") for number in range(1, 8)),
)

_WHITE = (255, 255, 255, 255)


def decode_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """The whole first frame as an upright RGB picture: EXIF orientation applied, transparency over white.

    Raises:
        ImageError: with the reason.
    """
    if not data:
        raise ImageError("empty", "the file holds no bytes")
    image = _open(data)
    if image.width * image.height > max_pixels:
        raise ImageError("too_many_pixels", f"{image.width} x {image.height} is more than {max_pixels} pixels")
    try:
        image.load()
        return to_rgb(image)
    except MemoryError as error:
        raise ImageError("out_of_memory", f"decoding {image.width} x {image.height} pixels took too much") from error
    except Exception as error:  # decoders fail on damaged data in every way there is
        raise _decode_error(error) from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS)
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from error
    except Exception as error:
        raise _decode_error(error) from error


def _unidentified(data: bytes) -> ImageError:
    accepted = ", ".join(ACCEPTED_FORMATS)
    for start, magic, name in _OTHER_FORMATS:
        if data.startswith(magic, start):
            return ImageError("unsupported_format", f"{name} is not taken: convert it to one of {accepted}")
    return ImageError("not_an_image", f"no {accepted} begins like this")


def _decode_error(error: Exception) -> ImageError:
    text = str(error) or type(error).__name__
    cut_short = isinstance(error, EOFError | struct.error) or "truncated" in text.lower()
    return ImageError("truncated" if cut_short else "corrupt", text.splitlines()[0][:200])


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as upright RGB: EXIF orientation applied, deep grey scaled, transparency over white."""
    image = _upright(image)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_bytes(image)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken metadata says nothing about the picture
        return image


def _to_bytes(image: Image.Image) -> NDArray[np.uint8]:
    """Deep grey pixels scaled to 0..255; Pillow's own conversion would clip 16-bit pictures to plain white.

    The range is that of the mode or, for 32 bits, the smallest usual one that holds the values: 0..1 (floats),
    0..255, 0..65535, else the picture's own.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = 0.0, 65535.0
    if not image.mode.startswith("I;16"):
        smallest, largest = float(values.min()), float(values.max())
        limits = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        fitting = [limit for limit in limits if largest <= limit] if smallest >= 0 else []
        low, high = (0.0, fitting[0]) if fitting else (smallest, largest)
    return np.rint((values - low) * (255.0 / max(high - low, np.finfo(np.float64).tiny))).astype(np.uint8)
