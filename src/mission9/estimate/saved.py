"""An estimate that was kept -> how a run did beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mission9.errors import ConfigError
from mission9.estimate.interval import Interval
from mission9.storage.local.untrusted import read_file
from mission9.storage.s3.address import Address, is_s3

HERE = "this machine"

_MAX_BYTES = 1024 * 1024


def read_estimate(place: str) -> dict[str, Any]:
    """An estimate that was kept in a file, or in a bucket.

    Raises:
        ConfigError: there is none, or it is no estimate.
    """
    try:
        found = json.loads(_bytes(place))
        images, predictions = found["images"], found["predictions"]
        for item in predictions:
            Interval(*item["run_minutes"]).holds(0.0)
            item["machine"].strip()
        return {"images": int(images), "predictions": list(predictions)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{place} is no estimate: mission9 estimate --save writes one") from error


def _bytes(place: str) -> bytes:
    if is_s3(place):
        from mission9.storage.s3.objects import get

        return get(Address.of(place), _MAX_BYTES, ConfigError)
    try:
        return read_file(Path(place), _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"the estimate {place} cannot be read: {error.strerror}") from error


def compare(estimate: dict[str, Any], *, seconds: float, inferred: int, elsewhere: bool) -> dict[str, Any]:
    """Return what was predicted of a run, and what it took; comparable where it did all the images that were meant.

    `elsewhere`, the first machine that is not this one is meant.
    """
    meant = [item for item in estimate["predictions"] if elsewhere == (item["machine"] != HERE)]
    found = {"images": estimate["images"], "images_inferred": inferred, "actual_minutes": round(seconds / 60, 3)}
    if not meant:
        return found | {"predicted": None}
    within = Interval(*meant[0]["run_minutes"]).holds(seconds / 60)
    return found | {"predicted": meant[0], "comparable": inferred == estimate["images"], "within": within}
