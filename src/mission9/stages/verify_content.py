"""Check by SHA-256 that files of unchanged size and modification time have unchanged content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mission9.errors import ImageError
from mission9.output.shards import committed_features
from mission9.output.tables import read_table
from mission9.sources import open_source
from mission9.sources.base import Root

_READERS = 16  # threads that wait for disks and networks


@dataclass(frozen=True)
class VerifyContent:
    """`ContentCheck` by digest: True for each file whose SHA-256 is that recorded in the shard with its outcome.

    A rejected image has no recorded digest, and counts as changed.
    """

    root: Root
    folder: Path
    max_bytes: int

    def __call__(self, rows: pa.RecordBatch, keys: pa.Array) -> pa.Array:
        noted = dict(self._noted(rows["path"], keys))
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(lambda path: path in noted and self._digest(path) == noted[path], rows["path"].to_pylist())
            return pa.array(found, pa.bool_())

    def _noted(self, paths: pa.Array, keys: pa.Array) -> Iterator[tuple[str, str]]:
        for key in pc.unique(keys).drop_null().to_pylist():
            file = committed_features(self.folder, key)
            if file is not None:
                table = read_table(file, columns=["path", "sha256"])
                table = table.filter(pc.is_in(table["path"], value_set=paths.filter(pc.equal(keys, key))))
                yield from zip(table["path"].to_pylist(), table["sha256"].to_pylist(), strict=True)

    def _digest(self, path: str) -> str:
        try:
            return hashlib.sha256(open_source(self.root).read(path, max_bytes=self.max_bytes)).hexdigest()
        except ImageError:
            return ""
