"""A reader that sees one result, and not parts of two, while a run publishes the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def read_result(folder: Path, read: Callable[[Path], Found], *, patience: float = 60) -> tuple[bytes, Found]:
    """`run.json`, and what `read` finds in the tables beside it, of one result; waits where there is none.

    `run.json` is taken away before the first table is moved, and the next, which never is the same, comes after the
    last: tables read between two looks at one `run.json` are those that it tells of.

    Raises:
        TimeoutError: there is none for so many seconds.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = _report(folder)
        if before is not None:
            try:
                found = read(folder)
            except Exception:  # whatever reading half a table raises
                if _report(folder) == before:
                    raise
            else:
                if _report(folder) == before:
                    return before, found
        time.sleep(0.001)
    raise TimeoutError(f"there is no result in {folder}")


def _report(folder: Path) -> bytes | None:
    try:
        return (folder / "run.json").read_bytes()
    except FileNotFoundError:
        return None
