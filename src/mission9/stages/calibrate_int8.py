"""Calibrate the int8 network on a sample of the images of a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mission9.errors import InputError
from mission9.models.engines.int8 import CALIBRATION_IMAGES, Int8Network, calibrate
from mission9.models.extraction import Extraction
from mission9.sampling import Reservoir
from mission9.sources.base import Root
from mission9.stages.prepare_images import ImageRow, prepare_ahead

logger = logging.getLogger(__name__)

_CANDIDATES = CALIBRATION_IMAGES + 64  # some may not be decodable


def calibrate_int8(
    root: Root, listing: Iterable[pa.RecordBatch], extraction: Extraction, *, scratch: Path | None = None
) -> Int8Network:
    """The int8 network of an extraction; the same listing of `root` gives the same sample of images.

    Temporary files are in `scratch` during the call.

    Raises:
        InputError: no image of the sample can be decoded.
        SetupError: nncf is not installed.
    """
    chosen = _sample(listing, _CANDIDATES)
    rows = (ImageRow(row["path"], row["split"], row["label"], row["bytes"], root) for row in chosen)
    prepared = [batch.pixels.copy() for batch in prepare_ahead(rows, extraction)]
    pixels = np.concatenate(prepared)[:CALIBRATION_IMAGES]
    if not len(pixels):
        raise InputError(
            f"int8 is calibrated on images, and of {len(chosen)} in {root} none can be decoded: see why by a "
            "run with --precision float32, in rejects/"
        )
    logger.info("int8: calibrated on %s images", len(pixels))
    return calibrate(extraction.weights, pixels, scratch)


def _sample(batches: Iterable[pa.RecordBatch], count: int) -> list[dict[str, Any]]:
    """A sample of at most `count` rows from all batches, in random order."""
    chosen = Reservoir[dict[str, Any]](count)
    for batch in batches:
        for at in range(len(batch)):
            chosen.offer(lambda rows=batch, at=at: rows.slice(at, 1).to_pylist()[0])  # type: ignore[misc]
    chosen.shuffle()
    return chosen.items
