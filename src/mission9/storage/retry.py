"""Call again what fails for a passing reason."""

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
    """Call `work`, and again after each of some pauses while it fails in a transient way.

    Pauses are in seconds, of which up to half is left out at random: workers that wait must not come back together.
    After `timeout` seconds nothing is tried again.
    """
    end = time.monotonic() + timeout
    for pause in pauses:
        try:
            return work()
        except Exception as error:  # obstore's have no base of their own
            if not is_transient(error) or time.monotonic() > end:
                raise
        time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (no secret)
    return work()
