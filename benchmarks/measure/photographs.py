"""Decoding of photographs: CPU milliseconds, how close fast decoding is, memory, and the resize in C against Pillow's.

python -m benchmarks.measure.photographs IMAGES WEIGHTS [PHOTOGRAPHS]

The photographs have 12 megapixels and are made of IMAGES: one to 1,200 of them side by side in each, with noise,
as JPEGs of quality 90. Fast decoding keeps at least k times the network's side; mission9 takes k = 2.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
import psutil
from benchmarks.measure.listing import peak_rss
from numpy.typing import NDArray
from PIL import Image

from mission9.decoding import plain_jpeg
from mission9.decoding.decode import open_image, reduce_jpeg, to_picture
from mission9.models import resize
from mission9.models.engines import choose_engine, make_engine
from mission9.models.mobilenet_v2 import INPUT_SIZE
from mission9.models.preprocess import to_input
from mission9.models.weights import load_weights
from mission9.options import MAX_PIXELS
from mission9.storage.local.names import IMAGE_EXTENSIONS

Pixels = NDArray[np.uint8]

SIZE = 4000, 3000
GRIDS = ((1, 1), (2, 2), (4, 3), (8, 6), (16, 12), (40, 30))
_MULTIPLES = (1, 2, 4)
_RESIZED = ((100, 100), (500, 375), SIZE)
_MEASURED = ((100, 100), SIZE, (8660, 5773))  # the last has 50 megapixels
_PASSES = 5


def main() -> None:
    images, weights, count = Path(sys.argv[1]), sys.argv[2], int((sys.argv[3:] or ["12"])[0])
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in IMAGE_EXTENSIONS)
    chance = Random(0)  # noqa: S311
    photographs = [photograph(chance.choices(files, k=x * y), x) for x, y in islice(cycle(GRIDS), count)]
    engine = make_engine(choose_engine(device="cpu", batch_size=4), load_weights(weights), threads=0)
    right = engine(np.stack([_decoded(data, None) for data in photographs]))
    print(f"{count} photographs of {SIZE[0]} x {SIZE[1]}; medians of {_PASSES} passes, CPU ms each, cosine to exact:")
    print(f"exact, Pillow alone     {_without_help(lambda: _milliseconds(photographs, None)):6.1f}")
    print(f"exact                   {_milliseconds(photographs, None):6.1f}")
    for multiple in _MULTIPLES:
        found = engine(np.stack([_decoded(data, multiple) for data in photographs]))
        cosines = (found * right).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(right, axis=1)
        speed = _milliseconds(photographs, multiple)
        print(
            f"fast, k = {multiple}             {speed:6.1f}   mean {cosines.mean():.5f}, smallest {cosines.min():.5f}"
        )
    for size in _RESIZED:
        mine, theirs = _resizes(size)
        print(
            f"resize of {size[0]} x {size[1]}: Pillow {theirs:.2f} ms, native {mine:.2f} ms, {theirs / mine:.1f} times"
        )
    for size in _MEASURED:
        data = photograph(files[:1], 1, size)
        exact, fast = (_growth_apart(data, multiple) / 2**20 for multiple in (None, 2))
        print(
            f"a process that decodes {size[0]} x {size[1]} grows by {exact:.0f} MiB, with fast decoding {fast:.0f} MiB"
        )


def photograph(files: Sequence[Path], across: int, size: tuple[int, int] = SIZE) -> bytes:
    """A JPEG of images side by side, `across` in a row, with noise as a camera's."""
    picture = Image.new("RGB", size)
    cell = size[0] // across, size[1] // (len(files) // across)
    for at, file in enumerate(files):
        with Image.open(file) as image:
            part = image.convert("RGB").resize(cell, Image.Resampling.BICUBIC)
        picture.paste(part, (at % across * cell[0], at // across * cell[1]))
    noise = np.random.default_rng(len(files)).normal(0, 4, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _decoded(data: bytes, multiple: int | None) -> Pixels:
    image = open_image(data, max_pixels=MAX_PIXELS)
    if multiple is not None:
        reduce_jpeg(image, multiple * INPUT_SIZE)
    return to_input(to_picture(image), "stretch")[..., :4].copy()


def _growth_apart(data: bytes, multiple: int | None) -> int:
    """Bytes by which a new process grows at most while it decodes an image, after it has decoded a small one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        growth: int = pool.submit(_growth, data, multiple).result()
    return growth


def _growth(data: bytes, multiple: int | None) -> int:
    buffer = io.BytesIO()
    Image.new("RGB", (50, 50)).save(buffer, "JPEG")
    _decoded(buffer.getvalue(), multiple)
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    _decoded(data, multiple)
    return int(peak_rss() - before)


def _milliseconds(photographs: Sequence[bytes], multiple: int | None) -> float:
    return _median(lambda: [_decoded(data, multiple) for data in photographs]) / len(photographs)


def _resizes(size: tuple[int, int]) -> tuple[float, float]:
    """Milliseconds of a resize in C, and by Pillow."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], resize.CHANNELS), np.uint8)
    picture, times = resize.as_picture(pixels), max(1, 2_000_000 // (size[0] * size[1]))

    def work() -> None:
        for _ in range(times):
            resize.resize(picture, (INPUT_SIZE, INPUT_SIZE))

    return _median(work) / times, _without_help(lambda: _median(work)) / times


def _without_help(measure: Callable[[], float]) -> float:
    """A measurement with neither simplejpeg nor mission9-native."""
    fast, native = vars(plain_jpeg)["simplejpeg"], resize.native_resize
    vars(plain_jpeg)["simplejpeg"], vars(resize)["native_resize"] = None, lambda: None
    try:
        return measure()
    finally:
        vars(plain_jpeg)["simplejpeg"], vars(resize)["native_resize"] = fast, native


def _median(work: Callable[[], object]) -> float:
    """CPU milliseconds of this process."""
    found = []
    for _ in range(_PASSES):
        start = time.process_time()
        work()
        found.append(1000 * (time.process_time() - start))
    return median(found)


if __name__ == "__main__":
    main()
