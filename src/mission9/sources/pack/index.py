"""The index of a pack: its rows in order, and the lookup of a path."""

from __future__ import annotations

import json
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mission9.errors import REASONS, ImageError, InputError, StorageError
from mission9.schema import LISTING, SPLITS
from mission9.sources.pack.layout import FIRST_PATHS
from mission9.storage.file_store import FileStore, is_missing
from mission9.storage.local.names import from_text, to_text

_GROUPS = 8  # row groups, of 2,000 rows, cached for each source in a process

_PART = re.compile(r"[0-9a-f]{32}")

_NO_NAMES = frozenset([b"", b".", b".."])
_NOT_IN_NAMES = frozenset(b"/\0")


class Gone(Exception):
    """A file of a pack has disappeared: the pack was updated, or the file was deleted."""


class Index:
    """The index of a store, by its name."""

    def __init__(self, store: FileStore, name: str) -> None:
        self._store, self.name = store, name
        self._lock = threading.RLock()  # the first caller reads for all
        self._groups: OrderedDict[int, dict[str, dict[str, Any]]] = OrderedDict()

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """The rows sorted by path, a row group at a time.

        Raises:
            InputError: the index is damaged.
            Gone: the index has disappeared.
        """
        last = b""
        with self._opened() as index:
            for number in range(index.num_row_groups):
                rows = index.read_row_group(number, columns=sorted({*columns, *LISTING.names}))
                last = _check_listing(rows, last)
                yield rows.select(columns)

    def facts(self, path: str) -> dict[str, Any]:
        """The index's entry for an image.

        Raises:
            ImageError: there is none, or it is not valid.
            InputError: the index is damaged.
            Gone: the index has disappeared.
        """
        with self._lock:
            metadata, first = self._metadata
            number = max(0, bisect_right(first, from_text(path)) - 1)
            rows = self._groups.get(number)
            if rows is None:
                with self._opened(metadata) as index:
                    rows = {row["path"]: row for row in index.read_row_group(number).to_pylist()}
                self._groups[number] = rows
                while len(self._groups) > _GROUPS:
                    self._groups.popitem(last=False)
        if path not in rows:
            raise ImageError("vanished", "there is no such image in the pack")
        return _sound(rows[path])

    @cached_property
    def _metadata(self) -> tuple[pq.FileMetaData, list[bytes]]:
        """The index's footer, and the first path of each row group."""
        with self._opened() as index:
            paths = json.loads((index.metadata.metadata or {}).get(FIRST_PATHS, b""))
            if not isinstance(paths, list) or len(paths) != index.num_row_groups:
                raise ValueError("it does not record where its rows begin")
            return index.metadata, [from_text(str(path)) for path in paths]

    @contextmanager
    def _opened(self, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        options = {"page_checksum_verification": True, "pre_buffer": True, "metadata": metadata}
        try:
            with self._store.open(self.name) as file, pq.ParquetFile(file, **options) as index:
                yield index
        except (pa.ArrowException, OSError, ValueError, StorageError) as error:
            if is_missing(error):
                raise Gone(f"{self._store}/{self.name} has disappeared") from error
            if isinstance(error, StorageError):
                raise InputError(str(error)) from error
            text = str(error).partition("\n")[0]
            raise InputError(f"{self._store}/{self.name} is damaged ({text}): pack the images again") from error


def _check_listing(rows: pa.Table, last: bytes) -> bytes:
    """Check that rows are those of a listing after the path `last`; return their last path.

    Raises:
        ValueError: the first invalid value.
    """
    if any(rows[name].null_count for name in LISTING.names):
        raise ValueError("a row lacks its path, split, label, size or time")
    for split in pc.unique(rows["split"]).to_pylist():
        if split not in SPLITS:
            raise ValueError(f"it has a split {split!r}")
    for label in pc.unique(rows["label"]).to_pylist():
        name = from_text(label)
        if name in _NO_NAMES or _NOT_IN_NAMES.intersection(name):
            raise ValueError(f"it has a label {label!r}")
    for text in rows["path"].to_pylist():
        path = from_text(text)
        if path <= last or b"\0" in path or _NO_NAMES.intersection(path.split(b"/")):
            raise ValueError(f"it has {text!r} after {to_text(last)!r}")
        last = path
    return last


def _sound(facts: dict[str, Any]) -> dict[str, Any]:
    """Check an untrusted index entry: it must name a part, and a range within it.

    Raises:
        ImageError: the entry is not valid.
    """
    if facts["reason"] is not None:
        return facts if facts["reason"] in REASONS else {**facts, "reason": "unreadable"}
    numbers = [facts[name] for name in ("at", "length", "page", "page_bytes")]
    is_sound = all(isinstance(number, int) and number >= 0 for number in numbers)
    if not (is_sound and _PART.fullmatch(facts["part"] or "")):
        raise ImageError("unreadable", "the pack's index has no valid place for it: pack again with --overwrite")
    return facts
