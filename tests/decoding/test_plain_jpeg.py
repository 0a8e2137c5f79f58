"""Plain JPEGs by simplejpeg, and everything else by Pillow: the same outcome as by Pillow alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mission9.decoding import plain_jpeg
from mission9.decoding.decode import decode_image, open_image
from mission9.decoding.plain_jpeg import decode_plain_jpeg
from mission9.errors import ImageError

MODES = ("RGB", "L", "CMYK")


def picture(rng: np.random.Generator, width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth in one half and noise in the other."""
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).copy()
    smooth[: height // 2] ^= rng.integers(0, 32, (height // 2, width, 3), np.uint8)
    return Image.fromarray(smooth).convert(mode)


def encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def outcome(data: bytes) -> NDArray[np.uint8] | str:
    try:
        return np.asarray(decode_image(data, max_pixels=10**7))
    except ImageError as error:
        return f"{error.reason}: {error}"


def by_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8] | str:
    with monkeypatch.context() as patch:
        patch.setattr(plain_jpeg, "simplejpeg", None)
        return outcome(data)


def is_plain(data: bytes) -> bool:
    return decode_plain_jpeg(open_image(data, max_pixels=10**7)) is not None


def assert_same(data: bytes, monkeypatch: pytest.MonkeyPatch, what: object) -> None:
    found, right = outcome(data), by_pillow(data, monkeypatch)
    if isinstance(right, str) or isinstance(found, str):
        assert found == right, what
    else:
        np.testing.assert_array_equal(found, right, err_msg=str(what))


def test_pixels_of_all_kinds_and_sizes_are_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    plain = 0
    for _ in range(150):
        width, height = (int(side) for side in rng.integers(1, 200, 2))
        options = {
            "quality": int(rng.integers(1, 101)),
            "subsampling": int(rng.integers(0, 3)),
            "progressive": bool(rng.integers(0, 2)),
            "restart_marker_blocks": int(rng.integers(0, 4)),
            "optimize": bool(rng.integers(0, 2)),
        }
        mode = MODES[int(rng.integers(0, 3))]
        data = encoded(picture(rng, width, height, mode), **options)
        assert_same(data, monkeypatch, (width, height, mode, options))
        assert is_plain(data) == (mode != "CMYK")
        plain += is_plain(data)
    assert plain > 80


def test_demo_pictures_are_plain_and_the_same(pictures: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for data in pictures:
        assert is_plain(data)
        assert_same(data, monkeypatch, "of the demo")


def test_damaged_files_have_pillows_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    outcomes = set()
    for number in range(300):
        image = picture(rng, int(rng.integers(16, 90)), int(rng.integers(16, 90)), MODES[number % 2])
        data = bytearray(encoded(image, progressive=bool(number % 3)))
        for at in rng.integers(2, len(data), int(rng.integers(1, 4))):
            data[at] = rng.integers(0, 256)
        damaged = bytes(data[: int(rng.integers(2, len(data)))] if number % 5 == 0 else data)
        assert_same(damaged, monkeypatch, number)
        found = outcome(damaged)
        outcomes.add(found.partition(":")[0] if isinstance(found, str) else "pixels")
    assert {"pixels", "truncated", "corrupt"} <= outcomes


@pytest.mark.parametrize("orientation", range(10))
def test_what_is_to_be_turned_is_pillows(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(np.random.default_rng(2), 50, 30), exif=turned(orientation))
    assert is_plain(data) == (orientation == 1)
    assert_same(data, monkeypatch, orientation)


def test_odd_files_are_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(np.random.default_rng(3), 60, 40)
    plain = encoded(image)
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # its last byte: the colours are RGB
    xmp = b'http://ns.adobe.com/xap/1.0/\x00<x tiff:Orientation="6"/>'
    buffer = io.BytesIO()
    image.save(buffer, "MPO", save_all=True, append_images=[image])
    odd = {
        "Adobe's marker": plain[:2] + adobe + plain[2:],
        "turned by XMP": plain[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + plain[2:],
        "several pictures": buffer.getvalue(),
        "broken EXIF": plain[:2] + b"\xff\xe1\x00\x10Exif\x00\x00MM\x00*\xff\xff\xff\xff" + plain[2:],
        "bytes between markers": plain.replace(b"\xff\xda", b"\x00\x00\x00\xff\xda", 1),
    }
    for name, data in odd.items():
        assert_same(data, monkeypatch, name)
    assert not any(is_plain(odd[name]) for name in ("Adobe's marker", "turned by XMP", "several pictures"))


def test_a_picture_to_be_decoded_at_reduced_size_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = open_image(encoded(picture(np.random.default_rng(4), 400, 400)), max_pixels=10**6)
    image.draft(None, (64, 64))
    assert decode_plain_jpeg(image) is None
