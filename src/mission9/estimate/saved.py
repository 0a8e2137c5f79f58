"""An estimate that was kept -> how a run did beside it."""

from __future__ import annotations

import json
from typing import Any

from mission9.errors import ConfigError
from mission9.estimate.interval import Interval
from mission9.storage.file_store import read_place

HERE = "this machine"

_MAX_BYTES = 1024 * 1024


def read_estimate(place: str) -> dict[str, Any]:
    """An estimate that was kept in a file, or in a bucket.

    Raises:
        ConfigError: there is none, or it is no estimate.
    """
    try:
        found = json.loads(read_place(place, _MAX_BYTES, ConfigError))
        images, predictions = found["images"], found["predictions"]
        for item in predictions:
            Interval(*item["run_minutes"]).holds(0.0)
            item["machine"].strip()
        return {"images": int(images), "predictions": list(predictions)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{place} is no estimate: mission9 estimate --save writes one") from error


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
