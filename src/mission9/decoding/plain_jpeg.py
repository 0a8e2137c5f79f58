"""Plain JPEGs -> pictures, by simplejpeg: the pixels that Pillow gives, in half of the time."""

from __future__ import annotations

import io
from typing import TypeGuard

from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from mission9.models.resize import as_picture

try:
    import simplejpeg
except ImportError:  # for a platform without a wheel
    simplejpeg = None


def decode_plain_jpeg(image: Image.Image) -> Image.Image | None:
    """Decode a JPEG that Pillow has opened and not yet decoded; return None if Pillow is to decode it.

    That is so if anything about the file is unusual: it needs to be turned, its colours are CMYK or marked by Adobe's
    software, it holds several pictures, it is damaged, or the decoder has anything to remark on it.

    Raises:
        MemoryError: its pixels exceed the memory limit.
    """
    if simplejpeg is None or not _is_plain(image) or not isinstance(image.fp, io.BytesIO):
        return None
    try:
        return as_picture(simplejpeg.decode_jpeg(image.fp.getbuffer(), "RGBX", strict=True))
    except ValueError:
        return None


def is_upright(image: Image.Image) -> bool:
    """True if a picture needs no turn."""
    return orientation(image) == 1


def orientation(image: Image.Image) -> int:
    """The orientation of a picture in its EXIF data; 1, upright, if they are absent or broken."""
    try:
        exif = image.getexif()
        if image.format == "AVIF":
            # Its container alone decides, which Pillow's EXIF data repeat. Without a turn, Pillow would ask XMP data.
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata says nothing about the picture
        return 1


def _is_plain(image: Image.Image) -> TypeGuard[JpegImageFile]:
    if not isinstance(image, JpegImageFile) or image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return False
    is_reduced = bool(image.decoderconfig)  # by Image.draft
    if is_reduced or "adobe" in image.info:
        return False
    return is_upright(image)
