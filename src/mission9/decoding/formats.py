"""The image formats that this installation decodes; other formats are recognised by their first bytes, never parsed."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec

from PIL import AvifImagePlugin, Image, features

from mission9.decoding.png_chunks import PNG_SIGNATURE
from mission9.errors import ImageError

# The parsers that Pillow may use. Others, such as EPS, which starts a program, never see a byte.
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# The formats that some installations lack, and the remedy. HEIC is what people call Pillow's format HEIF.
_REMEDIES = {
    "AVIF": "install a wheel of Pillow",
    "HEIC": "pip install 'mission9[heic]'",
}

# AVIF and HEIC share a container, which names its contents in brands. The first is decisive, unless it is general.
_AVIF = (b"avif", b"avis")
_HEVC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_BRANDS = dict.fromkeys(_AVIF, "AVIF") | dict.fromkeys(_HEVC, "HEIC")
_GENERAL = (b"mif1", b"msf1")
_MAX_BRANDS = 64

# Magic numbers of other formats, with their offsets.
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
    *((0, b"P%d" % number, "PPM") for number in range(1, 8)),
)

# Magic numbers of accepted formats: with one of them, an unreadable header is damaged.
_BEGINNINGS = (
    (PNG_SIGNATURE, "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    *((start, "TIFF") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)


def load_decoders() -> None:
    """Load the decoders of AVIF and HEIC; for processes that parse images, before they limit their memory.

    Each uses one thread: a decoder process is one of as many as there are cores, and each thread would take address
    space from its limit.
    """
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with contextlib.suppress(ImportError):
        import pillow_heif

        # No parser runs for pictures that are not needed. Pillow itself decodes AVIF.
        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def installed_formats() -> list[str]:
    """The formats among AVIF and HEIC that decoder processes of this installation accept."""
    has_heif = find_spec("pillow_heif") is not None
    return [name for name, found in (("AVIF", features.check("avif")), ("HEIC", has_heif)) if found]


def parsers_for(data: bytes) -> tuple[str, ...]:
    """The parsers of Pillow that may see an encoded image.

    Raises:
        ImageError: it is AVIF or HEIC, and its decoder is absent.
    """
    name = _boxed_format(data)
    if name is None:
        return ACCEPTED_FORMATS
    if name not in _loaded():
        raise _unsupported(name)
    return ("HEIF" if name == "HEIC" else name,)


def unidentified(data: bytes) -> ImageError:
    """The error of an image whose header no parser can read."""
    for start, magic, name in _OTHER_FORMATS:
        if data.startswith(magic, start):
            return _unsupported(name)
    name = _boxed_format(data) or next((name for magic, name in _BEGINNINGS if data.startswith(magic)), "")
    if name:
        cut_short = data[4:8] == b"ftyp" and _ends_too_soon(data)
        return ImageError(
            "truncated" if cut_short else "corrupt", f"it begins like a {name}, but its header is damaged or truncated"
        )
    return ImageError("not_an_image", f"it begins like none of {_accepted()}")


def unsupported_pattern(names: list[str]) -> str:
    """A regular expression of the messages with which images of some formats were rejected as unsupported."""
    return rf"^({'|'.join(names)}) is not supported:"


def _unsupported(name: str) -> ImageError:
    remedy = f"{_REMEDIES[name]}, or convert" if name in _REMEDIES else "convert"
    return ImageError("unsupported_format", f"{name} is not supported: {remedy} it to one of {_accepted()}")


def _accepted() -> str:
    return ", ".join((*ACCEPTED_FORMATS, *_loaded()))


def _loaded() -> list[str]:
    """The formats among AVIF and HEIC that this process can decode."""
    return [name for name, found in (("AVIF", features.check("avif")), ("HEIC", "HEIF" in Image.OPEN)) if found]


def _boxed_format(data: bytes) -> str | None:
    if data[4:8] != b"ftyp":
        return None
    first, others = data[8:12], data[16 : min(int.from_bytes(data[:4]), 16 + 4 * _MAX_BRANDS)]
    if first not in _GENERAL:
        return _BRANDS.get(first)
    brands = (others[at : at + 4] for at in range(0, len(others), 4))
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "HEIC")


def _ends_too_soon(data: bytes) -> bool:
    """True if one of the boxes of a container is longer than the rest of the data."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16])
        if length < 8:  # 0: the rest of the file; other numbers are damage
            return False
        at += length
    return at != len(data)
