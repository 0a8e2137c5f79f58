"""Name the damaged file of a pack, where damage is no reason to end: what it told of is made anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


class Damaged(Exception):
    """A file of a pack does not hold what was written to it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} is damaged ({why})")
        self.name = name


@contextmanager
def damage_found(name: str) -> Iterator[None]:
    """Turn what Parquet's reader raises of a file into an error that says which.

    Raises:
        Damaged: in its place; what the system raises stays.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Damaged(name, str(error).partition("\n")[0]) from error
