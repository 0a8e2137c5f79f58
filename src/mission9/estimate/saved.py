"""A saved estimate -> the predicted and the actual time of a run."""

from __future__ import annotations

import json
from typing import Any

from mission9.errors import ConfigError
from mission9.estimate.interval import Interval
from mission9.storage.file_store import read_place

HERE = "this machine"

_MAX_BYTES = 1024 * 1024


def read_estimate(place: str) -> dict[str, Any]:
    """Read a saved estimate from a file or a bucket.

    Raises:
        ConfigError: it is missing, or not an estimate.
    """
    try:
        found = json.loads(read_place(place, _MAX_BYTES, ConfigError))
        images, predictions = found["images"], found["predictions"]
        for item in predictions:
            Interval(*item["run_minutes"]).holds(0.0)
            item["machine"].strip()
        return {"images": int(images), "predictions": list(predictions)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{place} is not an estimate: write one with mission9 estimate --save") from error


def compare(estimate: dict[str, Any], *, seconds: float, inferred: int, elsewhere: bool) -> dict[str, Any]:
    """The prediction for a run and its actual time; comparable if the run computed all the images of the estimate.

    With `elsewhere`, the prediction is that of the first machine other than this one.
    """
    meant = [item for item in estimate["predictions"] if elsewhere == (item["machine"] != HERE)]
    found = {"images": estimate["images"], "images_inferred": inferred, "actual_minutes": round(seconds / 60, 3)}
    if not meant:
        return found | {"predicted": None}
    within = Interval(*meant[0]["run_minutes"]).holds(seconds / 60)
    return found | {"predicted": meant[0], "comparable": inferred == estimate["images"], "within": within}
