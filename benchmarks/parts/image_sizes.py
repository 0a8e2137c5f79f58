"""Whole runs over images of the sizes that people have, beside two peers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from random import Random

from benchmarks.measure.photographs import GRIDS, photograph
from benchmarks.measure.ratios import LOADER, UDF
from benchmarks.measure.sitting import Sitting
from benchmarks.parts import Figures, Part

# Width and height, and how many: of fruits-360, of ImageNet, and of a telephone.
SIZES = {"100 x 100": (100, 100, 600), "500 x 375": (500, 375, 400), "4000 x 3000": (4000, 3000, 96)}
SPLITS = ("Test", *7 * ("Training",))


def run(sitting: Sitting) -> Figures:
    """Run ours and the peers over images of each size, made of the sitting's; `--count` limits their number."""
    sizes = {name: one_size(sitting, name, *size) for name, size in SIZES.items()}
    return {"machine": asdict(sitting.machine), "images": sitting.called, "sizes": sizes}


def one_size(sitting: Sitting, name: str, width: int, height: int, most: int) -> Figures:
    sitting.say(f"{name} …")
    count = min(most, sitting.options.count or most)
    folder = sitting.work / name
    for at, data in enumerate(pictures(sitting, (width, height), count)):
        file = folder / "images" / SPLITS[at % len(SPLITS)] / f"label {at % 2}" / f"{at}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    options = vars(sitting.options) | {"images": folder / "images", "count": count, "few": count}
    one = Sitting(argparse.Namespace(**options), folder)
    for precision in sitting.options.precisions:
        one.ours("local", count, precision)
    if width > 1000:
        one.ours("local", count, decode="fast")
    one.peer(LOADER, count)
    one.peer(UDF, count)
    sitting.failures |= {f"{name} {failed}": one.result.skipped[failed] for failed in one.result.failed}
    return {"runs": [asdict(found) for found in one.result.runs.values()], "skipped": one.result.skipped}


def pictures(sitting: Sitting, size: tuple[int, int], count: int) -> Iterator[bytes]:
    """Photographs of a size; the sitting's own images where that is theirs."""
    files = [Path(sitting.source) / path for path in sitting.paths]
    chance = Random(0)  # noqa: S311
    if size == (100, 100):
        yield from (file.read_bytes() for file in chance.sample(files, count))
        return
    for across, down in islice(cycle(GRIDS[:3]), count):
        yield photograph(chance.choices(files, k=across * down), across, size)


IMAGE_SIZES = Part(name="image-sizes", section="image_sizes", run=run, is_long=True)
