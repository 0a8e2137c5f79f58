"""Name the damaged file of a pack, where damage is not fatal: its content is made again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


class Damaged(Exception):
    """A pack's file no longer has its original content."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} is damaged ({why})")
        self.name = name


@contextmanager
def damage_found(name: str) -> Iterator[None]:
    """Turn an exception of Parquet's reader into an error that names the file.

    Raises:
        Damaged: in place of it; OS errors pass through.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Damaged(name, str(error).partition("\n")[0]) from error
