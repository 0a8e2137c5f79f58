"""Encoded images, damaged: anywhere, and where their formats keep lengths, sizes and tables."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

# Where arithmetic of lengths and sizes goes wrong.
_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    2**32 - 1,
)
# The boxes of AVIF and HEIC that hold others, and the bytes of a version or a count before those.
_HOLDERS = {
    b"meta": 4, b"iprp": 0, b"ipco": 0, b"iinf": 6, b"iref": 4, b"dinf": 0, b"grpl": 0,
    b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8,
}  # fmt: skip
_CHANGES = (1, 1, 1, 2, 2, 3, 4)
PNG = b"\x89PNG\r\n\x1a\n"

Chance = np.random.Generator
Mutation = Callable[[Chance, bytearray], None]


class Field(NamedTuple):
    """A place that holds a number: so many bytes, of one byte order or the other."""

    at: int
    size: int
    big: bool


def mutate(chance: Chance, data: bytes, other: bytes) -> bytes:
    """The bytes of an image after a few changes; sometimes the rest of another one follows."""
    changed = bytearray(data)
    if chance.random() < 0.05:
        changed[_place(chance, changed) :] = other[_place(chance, other) :]
    for _ in range(int(chance.choice(_CHANGES))):
        if changed:
            _MUTATIONS[chance.choice(len(_MUTATIONS), p=_SHARES)](chance, changed)
    return with_sums(bytes(changed)) if chance.random() < 0.9 else bytes(changed)


def with_sums(data: bytes) -> bytes:
    """A PNG whose checksums are right again, so that its parser gets to what was changed; others as they are."""
    if not data.startswith(PNG):
        return data
    fixed = bytearray(data)
    for start, length in _png_chunks(data):
        fixed[start + 8 + length : start + 12 + length] = struct.pack(
            ">I", zlib.crc32(data[start + 4 : start + 8 + length])
        )
    return bytes(fixed)


def _place(chance: Chance, data: bytes | bytearray) -> int:
    return int(chance.integers(0, len(data))) if data else 0


def _flip(chance: Chance, data: bytearray) -> None:
    data[_place(chance, data)] ^= 1 << int(chance.integers(8))


def _set(chance: Chance, data: bytearray) -> None:
    edge = chance.random() < 0.5
    data[_place(chance, data)] = int(chance.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]) if edge else chance.integers(256))


def _cut(chance: Chance, data: bytearray) -> None:
    del data[_place(chance, data) :]


def _take_out(chance: Chance, data: bytearray) -> None:
    start = _place(chance, data)
    del data[start : start + int(chance.integers(1, 64))]


def _double(chance: Chance, data: bytearray) -> None:
    start = _place(chance, data)
    data[start:start] = data[start : start + int(chance.integers(1, 512))]


def _blank(chance: Chance, data: bytearray) -> None:
    start = _place(chance, data)
    length = len(data[start : start + int(chance.integers(1, 256))])
    data[start : start + length] = bytes([int(chance.choice([0, 0xFF]))]) * length


def _edit_field(chance: Chance, data: bytearray) -> None:
    """Another number where the format keeps one; anywhere, where it is of no format any more."""
    fields = list(fields_of(bytes(data)))
    if fields:
        field = fields[int(chance.integers(len(fields)))]
    else:
        field = Field(_place(chance, data), int(chance.choice([1, 2, 4])), bool(chance.integers(2)))
    old = int.from_bytes(data[field.at : field.at + field.size], "big" if field.big else "little")
    near = old + int(chance.integers(-3, 4))
    number = int(
        chance.choice(np.array([near, old * 2, old // 2, chance.choice(_NUMBERS), chance.integers(2**16)], np.int64))
    )
    mask = 256**field.size - 1
    data[field.at : field.at + field.size] = (number & mask).to_bytes(field.size, "big" if field.big else "little")


def _move_block(chance: Chance, data: bytearray) -> None:
    """A block of the format taken out, doubled or put elsewhere."""
    blocks = list(blocks_of(bytes(data)))
    if len(blocks) < 2:
        return _double(chance, data)
    start, end = blocks[int(chance.integers(len(blocks)))]
    block, what = data[start:end], int(chance.integers(3))
    if what != 1:
        del data[start:end]
    if what != 0:
        to = min(blocks[int(chance.integers(len(blocks)))][0], len(data))
        data[to:to] = block
    return None


def _edit_inside(chance: Chance, data: bytearray) -> None:
    """A change of what a PNG's pixels are before they are compressed, which no checksum would let through."""
    for start, length in _png_chunks(bytes(data)) if data.startswith(PNG) else ():
        with contextlib.suppress(zlib.error):
            inside = bytearray(zlib.decompress(data[start + 8 : start + 8 + length]))
            inside[_place(chance, inside)] = int(chance.integers(256))
            packed = zlib.compress(inside)
            data[start : start + 8 + length] = struct.pack(">I", len(packed)) + data[start + 4 : start + 8] + packed
            return None
    return _edit_field(chance, data)


def fields_of(data: bytes) -> Iterator[Field]:
    """Return where an image's format keeps lengths, sizes, counts and kinds."""
    for begin, find in _FIELDS.items():
        if data.startswith(begin):
            yield from find(data)
    if data[4:8] == b"ftyp":
        yield from _box_fields(data)


def _png_fields(data: bytes) -> Iterator[Field]:
    for start, length in _png_chunks(data):
        yield Field(start, 4, big=True)
        yield from (Field(at, 1, big=True) for at in range(start + 8, start + 8 + min(length, 32)))
        yield from (Field(start + 8 + at, 4, big=True) for at in (0, 4) if data[start + 4 : start + 8] == b"IHDR")


def _jpeg_fields(data: bytes) -> Iterator[Field]:
    for start, end in _jpeg_segments(data):
        yield Field(start + 2, 2, big=True)
        yield from (Field(at, 1, big=True) for at in (start + 1, *range(start + 4, min(end, start + 36))))
        if 0xC0 <= data[start + 1] <= 0xC2:
            yield from (Field(at, 2, big=True) for at in (start + 5, start + 7))


def _gif_fields(data: bytes) -> Iterator[Field]:
    yield from (Field(at, 2, big=False) for at in (6, 8))
    yield from (Field(at, 1, big=False) for at in (10, 11))
    for start, end in _gif_blocks(data):
        yield from (Field(at, 1, big=False) for at in range(start, min(end, start + 12)))


def _riff_fields(data: bytes) -> Iterator[Field]:
    for start, end in [(0, 12), *_riff_chunks(data)]:
        yield Field(start + 4, 4, big=False)
        yield from (Field(at, 1, big=False) for at in range(start + 8, min(end, start + 24)))


def _bmp_fields(data: bytes) -> Iterator[Field]:
    yield from (Field(at, 4, big=False) for at in (2, 10, 14, 18, 22, 30, 34, 46, 50) if at + 4 <= len(data))
    yield from (Field(at, 2, big=False) for at in (26, 28) if at + 2 <= len(data))


def blocks_of(data: bytes) -> Iterator[tuple[int, int]]:
    """First and last byte, but one, of the blocks that an image's format is made of."""
    if data.startswith(PNG):
        yield from ((start, start + 12 + length) for start, length in _png_chunks(data))
    elif data.startswith(b"\xff\xd8"):
        yield from _jpeg_segments(data)
    elif data.startswith(b"GIF8"):
        yield from _gif_blocks(data)
    elif data.startswith(b"RIFF"):
        yield from _riff_chunks(data)
    elif data[4:8] == b"ftyp":
        yield from ((start, end) for start, _, end in _boxes(data))
    elif data[:4] in (b"II*\0", b"MM\0*"):
        yield from ((at, at + 12) for at in _tiff_entries(data))


def _png_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Start of each chunk, and the length of what it holds."""
    at = len(PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            return
        yield at, length
        at += 12 + length


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield at, min(end, len(data))
        if data[at + 1] == 0xDA:
            return
        at = end


def _riff_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield at, min(at + 8 + length, len(data))
        at += 8 + length + length % 2


def _boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Return each box of AVIF or HEIC, those within others too: its start, the start of its content, its end."""
    at, end = start, len(data) if end is None else end
    while at + 8 <= end:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if length < 8 or at + length > end:
            return
        yield at, at + 8, at + length
        if kind in _HOLDERS:
            yield from _boxes(data, at + 8 + _HOLDERS[kind], at + length)
        at += length


def _box_fields(data: bytes) -> Iterator[Field]:
    for start, content, end in _boxes(data):
        yield Field(start, 4, big=True)
        if data[start + 4 : start + 8] not in (*_HOLDERS, b"mdat"):
            yield from (Field(at, 1, big=True) for at in range(content, min(end, content + 32)))
            yield from (Field(at, 4, big=True) for at in range(content, min(end, content + 32) - 3, 4))


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    if len(data) < 13:
        return
    at = 13 + (3 << (data[10] % 8 + 1) if data[10] & 0x80 else 0)
    while at + 10 < len(data) and data[at] in (0x21, 0x2C):
        start, at = at, at + 2
        if data[start] == 0x2C:
            at = start + 11 + (3 << (data[start + 9] % 8 + 1) if data[start + 9] & 0x80 else 0)
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        yield start, min(at, len(data))


def _tiff_entries(data: bytes) -> Iterator[int]:
    """Return where the entries of the first directory lie."""
    order = "<" if data.startswith(b"II") else ">"
    start = struct.unpack_from(f"{order}I", data, 4)[0] if len(data) >= 8 else len(data)
    count = struct.unpack_from(f"{order}H", data, start)[0] if start + 2 <= len(data) else 0
    yield from (start + 2 + 12 * n for n in range(min(count, 64)) if start + 14 + 12 * n <= len(data))


def _tiff_fields(data: bytes) -> Iterator[Field]:
    big = data.startswith(b"MM")
    yield Field(4, 4, big)
    for at in _tiff_entries(data):
        yield from (Field(at, 2, big), Field(at + 2, 2, big), Field(at + 4, 4, big))
        yield from (Field(at + 8, 4, big), Field(at + 8, 2, big))  # a long and a short value


_WEIGHTS: dict[Mutation, float] = {
    _flip: 3, _set: 3, _cut: 0.5, _take_out: 1, _double: 1, _blank: 1,
    _edit_field: 6, _edit_inside: 2, _move_block: 1.5,
}  # fmt: skip
_MUTATIONS = list(_WEIGHTS)
_SHARES = np.array(list(_WEIGHTS.values())) / sum(_WEIGHTS.values())
_FIELDS: dict[bytes, Callable[[bytes], Iterator[Field]]] = {
    PNG: _png_fields,
    b"\xff\xd8": _jpeg_fields,
    b"GIF8": _gif_fields,
    b"RIFF": _riff_fields,
    b"BM": _bmp_fields,
    b"II*\0": _tiff_fields,
    b"MM\0*": _tiff_fields,
}
