"""The resize of mission9-native against Pillow's, byte for byte."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mission9.models import resize as module
from mission9.models.preprocess import to_input
from mission9.models.resize import as_picture, resize, view
from mission9.options import Preprocess

Pixels = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    module.native_resize.cache_clear()
    yield
    module.native_resize.cache_clear()


def random_picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def right(picture: Image.Image, size: tuple[int, int]) -> Pixels:
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def test_native_bytes_are_pillows() -> None:
    pytest.importorskip("mission9_native", reason="mission9-native is not built here: make native")
    assert module.native_resize() is not None
    rng = np.random.default_rng(0)
    for number in range(300):
        most = (30, 300, 900)[number % 3]
        width, height = (int(side) for side in rng.integers(1, most, 2))
        new = (224, 224) if number % 2 else (int(rng.integers(1, 400)), int(rng.integers(1, 400)))
        picture = random_picture(rng, width, height)
        found = resize(as_picture(view(picture)), new)[..., :3]
        np.testing.assert_array_equal(found, right(picture, new), err_msg=f"{width} x {height} to {new}")


def test_native_refuses_buffers_of_other_sizes() -> None:
    native = pytest.importorskip("mission9_native", reason="mission9-native is not built here: make native")
    pixels, out = np.zeros((10, 10, 4), np.uint8), np.zeros((5, 5, 4), np.uint8)
    for size, new in (((10, 11), (5, 5)), ((10, 10), (5, 6)), ((0, 10), (5, 5)), ((-10, -10), (5, 5))):
        with pytest.raises(ValueError, match="a buffer is not of 4 bytes"):
            native.resize(pixels, size, out, new)
    with pytest.raises(TypeError):
        native.resize(pixels, (10, 10), bytes(100), (5, 5))


@pytest.mark.parametrize("how", ["stretch", "crop"])
def test_inputs_are_the_same_without_it(how: Preprocess, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    pictures = [random_picture(rng, *size) for size in ((100, 100), (300, 40), (20, 900), (224, 224), (5, 1000))]
    found = [to_input(picture, how)[..., :3].copy() for picture in pictures]
    monkeypatch.setitem(sys.modules, "mission9_native", None)
    module.native_resize.cache_clear()
    assert module.native_resize() is None
    for picture, pixels in zip(pictures, found, strict=True):
        assert pixels.shape == (224, 224, 3)
        np.testing.assert_array_equal(to_input(picture, how)[..., :3], pixels)


def test_an_implementation_of_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        @staticmethod
        def resize(_: object, __: object, out: Pixels, ___: object) -> None:
            out[:] = 0

    monkeypatch.setitem(sys.modules, "mission9_native", Other)
    assert module.native_resize() is None
    picture = random_picture(np.random.default_rng(2), 50, 40)
    np.testing.assert_array_equal(resize(picture, (30, 30))[..., :3], right(picture, (30, 30)))


def test_a_large_picture_in_several_blocks_is_resized_too() -> None:
    picture = random_picture(np.random.default_rng(3), 3000, 2000)
    with pytest.raises(ValueError, match="contiguous"):
        view(picture)
    np.testing.assert_array_equal(resize(picture, (224, 224))[..., :3], right(picture, (224, 224)))
