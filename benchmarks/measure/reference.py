"""The right features of some images: golden ones where they lie beside the weights, else those of torch in float32.

python -m benchmarks.measure.reference IMAGES WEIGHTS FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from benchmarks.measure.child import run_module
from numpy.typing import NDArray

from mission9.decoding.pixels import pixels_digest
from mission9.models.engines import choose_engine, make_engine
from mission9.models.extraction import Extraction
from mission9.models.weights import load_weights
from mission9.options import MAX_BYTES, MAX_PIXELS
from mission9.sources import find_root
from mission9.sources.list_images import list_images
from mission9.sources.listing import ListingCounts
from mission9.stages.prepare_images import ImageRow, prepare_ahead

COMPARED = 64
_GOLDEN = "fruits-64.npz"

# Features by path, relative to the folder of images.
Reference = dict[str, NDArray[np.float64]]


def reference(images: Path, smallest: Path, weights: str, work: Path) -> tuple[Reference, str]:
    """The reference for a folder of images, and what it is; `smallest` is the tree that lies in all others."""
    golden = Path(weights).resolve().parent.parent / "golden" / _GOLDEN
    if Path(weights).is_file() and golden.is_file():
        found = _load(golden)
        if all((images / path).is_file() for path in found):
            return found, f"float64 features of {len(found)} images ({_GOLDEN})"
    file = work / "reference.npz"
    run_module("reference", str(smallest), weights, str(file))
    return _load(file), f"torch in float32, {COMPARED} images at most"


def _load(file: Path) -> Reference:
    with np.load(file) as arrays:
        return dict(zip(map(str, arrays["paths"]), arrays["features"].astype(np.float64), strict=True))


def main() -> None:
    images, weights, file = sys.argv[1:4]
    root = find_root(images)
    extraction = Extraction(
        engine=choose_engine(engine="torch", device="cpu"),
        weights=load_weights(weights),
        preprocess="stretch",
        max_pixels=MAX_PIXELS,
        max_bytes=MAX_BYTES,
        pixels=pixels_digest(),
    )
    listed = [row for batch in list_images(root, ListingCounts()) for row in batch.to_pylist()]
    rows = [ImageRow(row["path"], row["split"], row["label"], row["bytes"], root) for row in listed]
    engine = make_engine(extraction.engine, extraction.weights, threads=0)
    paths, features = [], []
    for batch in prepare_ahead(rows[:: -(-len(rows) // COMPARED)], extraction):
        paths += [row.path for at, row in enumerate(batch.rows) if at not in batch.rejected]
        features.append(engine(batch.pixels))
    np.savez(file, paths=paths, features=np.concatenate(features))


if __name__ == "__main__":
    main()
