"""Remove from a PNG the chunks that do not affect its picture, and may be damaged, or exceed Pillow's limits."""

from __future__ import annotations

import struct
import zlib

from PIL import PngImagePlugin

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")

_HEAD = struct.Struct(">I4s")  # the length of a chunk's body, and its name
_CHECKSUM = struct.Struct(">I")
_ANCILLARY = 0x20  # a bit of the first letter

# Ancillary chunks that affect the pixels that Pillow decodes, or may contain the orientation.
_TRANSPARENCY, _EXIF = b"tRNS", b"eXIf"


def without_ornament(data: bytes) -> bytes:
    """The PNG with only the chunks that determine its pixels, and with its intact EXIF and texts.

    Colour profiles, times, animation and the like are dropped, as are texts that inflate beyond Pillow's limits
    (`MAX_TEXT_CHUNK`, in all `MAX_TEXT_MEMORY`).
    """
    view, at, kept = memoryview(data), len(PNG_SIGNATURE), [memoryview(PNG_SIGNATURE)]
    room = PngImagePlugin.MAX_TEXT_MEMORY
    while at + _HEAD.size <= len(data):
        length, name = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length + _CHECKSUM.size
        chunk = view[at:end]
        if not name[0] & _ANCILLARY or name == _TRANSPARENCY or end > len(data):
            kept.append(chunk)
        elif (name == _EXIF or name in PNG_TEXTS) and room > 0 and _is_whole(chunk):
            text = inflated(name, bytes(chunk[_HEAD.size : -_CHECKSUM.size]), min(room, PngImagePlugin.MAX_TEXT_CHUNK))
            if text is not None:
                kept.append(chunk)
            room = 0 if text is None else room - len(text)  # after an oversized text, no other is inflated
        if name == b"IEND":
            break
        at = end
    return b"".join(kept)


def _is_whole(chunk: memoryview) -> bool:
    (checksum,) = _CHECKSUM.unpack(chunk[-_CHECKSUM.size :])
    return bool(zlib.crc32(chunk[4 : -_CHECKSUM.size]) == checksum)


def inflated(name: bytes, body: bytes, most: int) -> bytes | None:
    """The body of a chunk, with its text inflated; None if it exceeds `most` bytes, or is damaged."""
    key, _, rest = body.partition(b"\0")
    is_packed, method, packed = name == b"zTXt", rest[:1], rest[1:]
    if name == b"iTXt":
        is_packed, method, packed = rest[:1] != b"\0", rest[1:2], rest[2:].split(b"\0", 2)[-1]
    if is_packed:
        try:
            text = zlib.decompressobj().decompress(packed, most + 1) if method == b"\0" else None
        except zlib.error:
            text = None
        if text is None:
            return None
        body = key + b"\0" + text
    return body if len(body) <= most else None
