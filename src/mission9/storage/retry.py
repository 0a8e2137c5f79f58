"""Retry transient failures."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Found = TypeVar("Found")


def retry(
    work: Callable[[], Found],
    is_transient: Callable[[Exception], bool],
    pauses: Sequence[float],
    *,
    timeout: float = float("inf"),
) -> Found:
    """Call `work`, retrying transient errors, with a pause before each retry.

    `pauses` are in seconds; each is shortened by up to half at random, so that waiting workers do not return together.
    No retry starts more than `timeout` seconds after the first call.
    """
    end = time.monotonic() + timeout
    for pause in pauses:
        try:
            return work()
        except Exception as error:  # obstore's errors have no base class of their own
            if not is_transient(error) or time.monotonic() > end:
                raise
        time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (no secret)
    return work()
