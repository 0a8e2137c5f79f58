"""Draw the probe images of `mission9.decoding.pixels`: one for each decoder, and for both orders of a resize."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    """Write the images into a folder, by default that of the package."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "src/mission9/decoding/probe")
    folder.mkdir(parents=True, exist_ok=True)
    for name, size, options in (
        ("portrait.jpg", (300, 400), {"quality": 70}),
        ("landscape.jpg", (400, 300), {"quality": 70, "progressive": True, "subsampling": 0}),
        ("small.jpg", (100, 100), {"quality": 85}),
        ("lossy.webp", (160, 120), {"quality": 70}),
        ("palette.gif", (90, 60), {}),
        ("compressed.tiff", (60, 90), {"compression": "jpeg"}),
    ):
        picture(*size).save(folder / name, **options)
    picture(120, 80).convert("CMYK").save(folder / "print.jpg", quality=70)
    transparent = picture(80, 120)
    transparent.putalpha(picture(80, 120, seed=1).convert("L"))
    transparent.save(folder / "transparent.png", optimize=True)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with sharp edges and some noise: each shows another rounding of a decoder or a filter."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(9 * x + 5 * y + k) * np.cos(7 * y - 3 * x * k) for k in (0.0, 1.0, 2.0)]
    pixels = 128 + 90 * np.stack(waves, -1)
    pixels[(30 * (x - 0.4) ** 2 + 20 * (y - 0.6) ** 2) < 1] += 80
    pixels[((16 * x).astype(int) + (16 * y).astype(int)) % 5 == 0] -= 60
    noise = np.random.default_rng(seed).normal(0, 12, (height // 2 + 1, width // 2 + 1, 1))
    pixels += noise.repeat(2, 0).repeat(2, 1)[:height, :width]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
