"""Small whole images of every accepted format and mode, for a fuzzer to damage."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

from mission9.datasets.demo import VARIETIES, draw
from mission9.decoding.formats import load_decoders
from tests.support.mutate import PNG

_TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
_PHOTOGRAPHS = 40


class Seed(NamedTuple):
    """An encoded image; `kind` is its format, `name` says which it is."""

    kind: str
    name: str
    data: bytes


def make_seeds(photographs: Path | None = None) -> list[Seed]:
    """The same seeds each time; with some of the JPEGs in a folder, if there is one."""
    picture = Image.fromarray(draw(VARIETIES[0], stream=9, number=0)).resize((48, 40))
    makers = [_jpegs, _pngs, _webps, _bmps, _gifs, _tiffs]
    makers += [_avifs] if features.check("avif") else []
    makers += [_heifs] if _writes_heif() else []
    seeds = [Seed(maker.__name__[1:-1].upper(), name, data) for maker in makers for name, data in maker(picture)]
    if photographs is not None and photographs.is_dir():
        files = sorted(photographs.rglob("*.jpg"))
        some = files[:: max(1, len(files) // _PHOTOGRAPHS)][:_PHOTOGRAPHS]
        seeds += [Seed("JPEG", f"photograph {file.name}", file.read_bytes()) for file in some]
    return seeds


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpegs(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "mission9"
    yield "baseline", encoded(picture, "JPEG", quality=90, subsampling=0)
    yield "subsampled", encoded(picture, "JPEG", quality=60, subsampling=2, optimize=True)
    yield "progressive", encoded(picture, "JPEG", progressive=True)
    yield "exif", encoded(picture, "JPEG", exif=exif, comment=b"a comment", icc_profile=b"no profile" * 20)
    yield "restarts", encoded(picture, "JPEG", restart_marker_blocks=2)
    for mode in ("L", "CMYK"):
        yield mode, encoded(picture.convert(mode), "JPEG")
    frames = [picture, picture.rotate(90, expand=True)]
    yield "MPO", encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])


def _pngs(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield mode, encoded(picture.convert(mode), "PNG")
    yield "16 bits", encoded(_deep(picture), "PNG")
    yield "palette with transparency", encoded(picture.convert("P"), "PNG", transparency=bytes(range(256)))
    yield "grey with a transparent level", encoded(picture.convert("L"), "PNG", transparency=100)
    yield "colour with a transparent one", encoded(picture, "PNG", transparency=(200, 30, 10))
    few = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    yield "2 bits", encoded(few, "PNG", bits=2)
    exif = Image.Exif()
    exif[0x0112] = 3
    yield "metadata", encoded(picture, "PNG", exif=exif, dpi=(72, 72), icc_profile=b"no profile" * 20)
    frames = [picture.rotate(angle) for angle in (90, 180)]
    yield "animated", encoded(picture, "PNG", save_all=True, append_images=frames, duration=50)
    yield "interlaced", _interlaced(picture)


def _webps(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    exif = Image.Exif()
    exif[0x0112] = 8
    for lossless in (False, True):
        word = "lossless" if lossless else "lossy"
        yield word, encoded(picture, "WEBP", lossless=lossless)
        yield f"{word} with alpha", encoded(_with_alpha(picture), "WEBP", lossless=lossless, exif=exif)
        frames = [picture.rotate(angle) for angle in (90, 180)]
        yield f"{word} animated", encoded(picture, "WEBP", lossless=lossless, save_all=True, append_images=frames)


def _bmps(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield mode, encoded(picture.convert(mode), "BMP")
    grey = picture.convert("L").resize((16, 8))
    yield "run lengths", _run_length_bmp(grey)
    upside = bytearray(encoded(picture, "BMP"))
    upside[22:26] = struct.pack("<i", -picture.height)
    yield "top down", bytes(upside)
    yield "16 bits", _bmp(picture.size, 16, bytes(picture.width * picture.height * 2))


def _gifs(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "plain", encoded(picture, "GIF", interlace=0)
    yield "interlaced", encoded(picture, "GIF", interlace=1)
    yield "transparent", encoded(picture.convert("P"), "GIF", transparency=3)
    frames = [picture.rotate(angle) for angle in (90, 180)]
    yield "animated", encoded(picture, "GIF", save_all=True, append_images=frames, disposal=2, comment=b"one")
    yield "grey", encoded(picture.convert("L"), "GIF")


def _tiffs(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    for compression in _TIFF_COMPRESSIONS:
        yield compression, encoded(picture, "TIFF", compression=compression)
    for fax in ("group3", "group4", "tiff_ccitt"):
        yield fax, encoded(picture.convert("1"), "TIFF", compression=fax)
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F"):
        yield mode, encoded(picture.convert("RGB").convert(mode) if mode != "LAB" else _lab(picture), "TIFF")
    yield "16 bits", encoded(_deep(picture), "TIFF")
    yield "16 bits, LZW", encoded(_deep(picture), "TIFF", compression="tiff_lzw")
    yield "pages", encoded(picture, "TIFF", save_all=True, append_images=[picture.convert("L")])
    tiles = {322: 16, 323: 16}  # TileWidth and TileLength
    yield "tiles", encoded(picture, "TIFF", compression="tiff_lzw", tiffinfo=tiles)
    yield "big", encoded(picture, "TIFF", big_tiff=True)
    yield "turned", encoded(picture, "TIFF", tiffinfo={274: 5})


def _avifs(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "mission9"
    yield "plain", encoded(picture, "AVIF")
    yield "grey", encoded(picture.convert("L"), "AVIF")
    yield "full colour", encoded(picture, "AVIF", subsampling="4:4:4", quality=95)
    yield "with alpha", encoded(_with_alpha(picture), "AVIF")
    yield "turned", encoded(picture, "AVIF", exif=exif, icc_profile=b"no profile" * 20)
    frames = [picture.rotate(angle) for angle in (90, 180)]
    yield "animated", encoded(picture, "AVIF", save_all=True, append_images=frames, duration=50)


def _heifs(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "mission9"
    fast = {"enc_params": {"preset": "ultrafast"}}
    yield "plain", encoded(picture, "HEIF", **fast)
    yield "grey", encoded(picture.convert("L"), "HEIF", **fast)
    yield "full colour", encoded(picture, "HEIF", chroma="444", quality=95)
    yield "10 bits", encoded(_deep(picture), "HEIF", **fast)
    yield "with alpha", encoded(_with_alpha(picture), "HEIF", **fast)
    yield "turned", encoded(picture, "HEIF", exif=exif, **fast)
    yield "tiles", encoded(picture.resize((160, 140)), "HEIF", tile_size=64, **fast)
    pages = [picture.rotate(90, expand=True)]
    yield "pages", encoded(picture, "HEIF", save_all=True, append_images=pages, thumbnails=[16], **fast)


def _writes_heif() -> bool:
    load_decoders()
    return "HEIF" in Image.SAVE


def _deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def _with_alpha(picture: Image.Image) -> Image.Image:
    copy = picture.copy()
    copy.putalpha(picture.convert("L"))
    return copy


def _lab(picture: Image.Image) -> Image.Image:
    return Image.frombytes("LAB", picture.size, picture.tobytes())


def _interlaced(picture: Image.Image) -> bytes:
    """A PNG in seven passes, which Pillow reads and does not write."""
    pixels = np.asarray(picture)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [row for top, left, down, right in passes for row in pixels[top::down, left::right]]
    head = struct.pack(">IIBBBBB", *picture.size, 8, 2, 0, 0, 1)
    chunks = (
        (b"IHDR", head),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    )
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _bmp(size: tuple[int, int], bits: int, pixels: bytes, *, compression: int = 0, palette: bytes = b"") -> bytes:
    start = 54 + len(palette)
    header = struct.pack("<2sIII", b"BM", start + len(pixels), 0, start)
    details = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0)
    return header + details + palette + pixels


def _run_length_bmp(grey: Image.Image) -> bytes:
    rows = np.asarray(grey)[::-1]
    lines = (b"".join(bytes((1, int(value))) for value in row) + b"\0\0" for row in rows)
    palette = b"".join(bytes((n, n, n, 0)) for n in range(256))
    return _bmp(grey.size, 8, b"".join(lines) + b"\0\1", compression=1, palette=palette)
