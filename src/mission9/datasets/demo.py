"""Generated photographs of fruit: the sample that `mission9 demo` runs on.

Each picture depends only on (variety, split, number), so two machines draw the same ones.
A fruit is a bent, lobed ellipsoid lit from a random side, on white as in Fruits-360; colour, size,
rotation, light and texture vary from picture to picture. Several varieties share a colour or a
shape, so neither alone distinguishes them.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 100  # pixels per side, as in Fruits-360
TRAINING_PER_VARIETY = 30
TEST_PER_VARIETY = 10
SPLITS = {"Training": TRAINING_PER_VARIETY, "Test": TEST_PER_VARIETY}

Texture = Literal["plain", "blush", "stripes", "speckles", "seeds", "dimples"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Variety:
    """The appearance of one kind of fruit; hues in degrees, saturation and value in 0..1."""

    name: str
    hue: float
    saturation: float = 0.8
    value: float = 0.8
    second_hue: float | None = None
    aspect: float = 1.0
    bend: float = 0.0
    lobes: tuple[float, ...] = ()
    texture: Texture = "plain"


VARIETIES = (
    Variety(name="Apple Green", hue=85, lobes=(0.04, 0.06), texture="speckles"),
    Variety(name="Apple Red", hue=355, value=0.65, lobes=(0.04, 0.06), texture="speckles"),
    Variety(name="Apple Striped", hue=45, second_hue=0, lobes=(0.04, 0.06), texture="stripes"),
    Variety(name="Banana", hue=52, value=0.9, aspect=0.36, bend=0.55, texture="blush", second_hue=75),
    Variety(name="Blueberry", hue=228, saturation=0.55, value=0.45, texture="blush", second_hue=250),
    Variety(name="Cherry", hue=350, value=0.5, lobes=(0.10,), texture="plain"),
    Variety(name="Kiwi", hue=32, saturation=0.55, value=0.45, aspect=0.82, texture="dimples"),
    Variety(name="Lemon", hue=54, value=0.92, aspect=0.74, lobes=(0.0, 0.0, 0.0, 0.05), texture="dimples"),
    Variety(name="Lime", hue=95, value=0.6, aspect=0.80, lobes=(0.0, 0.0, 0.0, 0.04), texture="dimples"),
    Variety(name="Orange", hue=28, saturation=0.9, value=0.92, texture="dimples"),
    Variety(name="Peach", hue=40, saturation=0.6, value=0.92, second_hue=5, lobes=(0.06,), texture="blush"),
    Variety(name="Pear", hue=72, saturation=0.6, value=0.8, aspect=0.72, lobes=(0.16, 0.0, 0.05), texture="speckles"),
    Variety(name="Plum", hue=300, saturation=0.5, value=0.38, aspect=0.85, texture="blush", second_hue=275),
    Variety(name="Strawberry", hue=356, value=0.78, aspect=0.85, lobes=(0.14, 0.0, 0.03), texture="seeds"),
    Variety(name="Tomato", hue=6, saturation=0.9, value=0.8, lobes=(0.0, 0.0, 0.0, 0.0, 0.04), texture="plain"),
    Variety(name="Watermelon", hue=105, value=0.6, second_hue=125, aspect=0.88, texture="stripes"),
)


def write_sample(root: Path) -> int:
    """Write the whole sample below `root` as <split>/<variety>/<number>_100.jpg; return its number of pictures.

    Existing files stay unchanged, so a second call costs nothing.
    """
    count = 0
    for split, variety, number in _pictures():
        path = root / split / variety.name / f"{number}_100.jpg"
        count += 1
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_bytes(jpeg(draw(variety, stream=list(SPLITS).index(split), number=number)))
        partial.replace(path)
    return count


def draw(variety: Variety, *, stream: int, number: int) -> NDArray[np.uint8]:
    """One picture of a variety, (100, 100, 3) uint8 RGB; the same arguments give the same picture."""
    rng = np.random.default_rng([VARIETIES.index(variety), stream, number])
    x, y = _fruit_coordinates(variety, rng)
    angle = np.arctan2(y, x)
    radius = np.hypot(x, y) / _outline(variety, angle)
    height = np.sqrt(np.clip(1.0 - radius**2, 0.0, 1.0))
    colour = _colour(variety, rng, angle, radius) * _light(x, y, height, rng)[..., None]
    inside = np.clip((1.0 - radius) * SIZE * 0.25, 0.0, 1.0)[..., None]  # a soft edge, about two pixels
    return np.rint(255 * (inside * np.clip(colour, 0, 1) + (1 - inside))).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _pictures() -> Iterator[tuple[str, Variety, int]]:
    for split, count in SPLITS.items():
        for variety in VARIETIES:
            for number in range(count):
                yield split, variety, number


def _fruit_coordinates(variety: Variety, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Pixel positions in the fruit's own frame: turned, scaled, shifted, bent; the outline is at radius 1."""
    turn, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.68, 0.92)
    aspect = variety.aspect * rng.uniform(0.92, 1.08)
    axis = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    px, py = np.meshgrid(axis - rng.normal(0, 0.04), axis - rng.normal(0, 0.04))
    x = (np.cos(turn) * px + np.sin(turn) * py) / scale
    y = (-np.sin(turn) * px + np.cos(turn) * py) / scale
    return x, (y + variety.bend * (x**2 - 0.4)) / aspect


def _outline(variety: Variety, angle: Floats) -> Floats:
    waves = [size * np.cos((order + 1) * angle) for order, size in enumerate(variety.lobes)]
    return np.asarray(1.0 + sum(waves, start=np.zeros_like(angle)))


def _light(x: Floats, y: Floats, height: Floats, rng: np.random.Generator) -> Floats:
    """Lambert shading with a soft highlight, for light from above the picture plane."""
    side, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.7)
    towards = np.cos(tilt) * height + np.sin(tilt) * (np.cos(side) * x + np.sin(side) * y)
    towards = np.clip(towards, 0, 1)
    return np.asarray(rng.uniform(0.85, 1.05) * (0.35 + 0.65 * towards) + 0.25 * towards**24)


def _colour(variety: Variety, rng: np.random.Generator, angle: Floats, radius: Floats) -> Floats:
    """Unlit RGB in 0..1, (100, 100, 3): two hues mixed by the variety's texture."""
    first = _rgb(variety.hue, variety, rng)
    second = _rgb(variety.hue if variety.second_hue is None else variety.second_hue, variety, rng)
    mix, shade = _texture(variety.texture, rng, angle, radius)
    return np.asarray((first + (second - first) * mix[..., None]) * shade[..., None])


def _rgb(hue: float, variety: Variety, rng: np.random.Generator) -> Floats:
    h = (hue + rng.normal(0, 4)) % 360 / 360
    s = np.clip(variety.saturation + rng.normal(0, 0.06), 0, 1)
    v = np.clip(variety.value + rng.normal(0, 0.05), 0, 1)
    return np.array(colorsys.hsv_to_rgb(h, s, v))


def _texture(kind: Texture, rng: np.random.Generator, angle: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """The share of the second hue and the brightness factor, for each pixel."""
    plain, ones = np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE))
    if kind == "blush":
        return np.clip(0.5 + 1.2 * _noise(4, rng), 0, 1), ones
    if kind == "stripes":
        wave = np.sin(angle * rng.integers(9, 13) + 2.0 * _noise(6, rng))
        return np.clip(0.5 + 1.5 * wave, 0, 1), 1 - 0.15 * np.clip(wave, 0, 1)
    if kind == "speckles":
        return plain, np.where(_noise(36, rng) > 0.55, 1.22, 1.0)
    if kind == "seeds":
        turns = angle * 8 + np.floor(radius * 7) * 0.9
        return plain, np.where((np.sin(turns) > 0.8) & (np.sin(radius * 7 * 2 * np.pi) > 0.5), 1.5, 1.0)
    if kind == "dimples":
        return plain, 1 + 0.16 * _noise(50, rng)
    return plain, 1 + 0.04 * _noise(5, rng)


def _noise(cells: int, rng: np.random.Generator) -> Floats:
    """Smooth noise of about unit amplitude with `cells` features per side."""
    grid = Image.fromarray(rng.normal(0, 0.5, (cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float64)
