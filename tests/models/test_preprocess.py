from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mission9.models.preprocess import thumbnail_size, to_input, to_thumbnail
from mission9.options import Preprocess


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels[..., :3]


def test_stretch_is_pillows_bilinear_to_224() -> None:
    image = picture(100, 60)
    wanted = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(rgb(to_input(image, "stretch")), wanted)


def test_stretch_leaves_224_as_it_is() -> None:
    image = picture(224, 224)
    np.testing.assert_array_equal(rgb(to_input(image, "stretch")), np.asarray(image))


@pytest.mark.parametrize(
    ("size", "resized"), [((300, 200), (348, 232)), ((200, 301), (232, 349)), ((232, 232), (232, 232))]
)
def test_crop_is_the_middle_of_the_shorter_side_at_232(size: tuple[int, int], resized: tuple[int, int]) -> None:
    image = picture(*size)
    left, top = round((resized[0] - 224) / 2), round((resized[1] - 224) / 2)
    wanted = np.asarray(image.resize(resized, Image.Resampling.BILINEAR))[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(rgb(to_input(image, "crop")), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1), (3, 224)])
@pytest.mark.parametrize("how", ["stretch", "crop"])
def test_any_shape_fits(size: tuple[int, int], how: Preprocess) -> None:
    assert to_input(picture(*size), how).shape == (224, 224, 4)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((128, 128), (64, 64)),
        ((300, 100), (64, 21)),
        ((10, 40), (16, 64)),
        ((1, 30_000), (1, 64)),
        ((30_000, 1), (64, 1)),
    ],
)
def test_a_thumbnail_is_the_whole_picture_in_its_own_shape(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = picture(*size)
    assert thumbnail_size(*size) == wanted
    np.testing.assert_array_equal(
        rgb(to_thumbnail(image, size)), np.asarray(image.resize(wanted, Image.Resampling.BILINEAR))
    )
