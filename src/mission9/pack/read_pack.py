"""A pack as a source of images: a path -> its bytes, by the index; what is read on is fetched a page at a time."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mission9.ahead import HERE, REMOTE
from mission9.errors import (
    REASONS,
    ConfigError,
    ImageError,
    InputError,
    Mission9Error,
    Reason,
    SetupError,
    StorageError,
)
from mission9.names import from_text
from mission9.pack.layout import FIRST_PATHS, MANIFEST, MOST_MANIFEST_BYTES, Manifest, part_file, split_index
from mission9.pack.store import Store, store_of
from mission9.s3.address import is_s3
from mission9.schema import LISTING
from mission9.stages.list_images import Found
from mission9.watch import progress

# Of each source in a process: pages of a megabyte, and groups of the index with 2,000 rows.
_PAGES, _GROUPS = 16, 8
_MOST_PAGE = 8 * 1024 * 1024  # of one large image, or of somebody who means no good

_PART = re.compile(r"[0-9a-f]{32}")


class PackSource:
    """The images of a pack, as its index told when the root was settled."""

    def __init__(self, root: str) -> None:
        self._place, self._name = split_index(root)
        self._store: Store = store_of(self._place)
        self._lock = threading.RLock()  # the first who asks reads for all
        self._groups: OrderedDict[int, dict[str, dict[str, Any]]] = OrderedDict()
        self._pages = _Pages(self._store)
        self.ahead = REMOTE if is_s3(root) else HERE

    def check(self) -> None:
        """A pack that is settled is there."""

    def rows(self, found: Found, *, all_files: bool, leave_out: str) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """The listing of which the pack was made, with what was skipped then; what it left out stays left out.

        Raises:
            InputError: the index is damaged.
        """
        manifest = Manifest.of(self._store.get(MANIFEST, MOST_MANIFEST_BYTES) or b"", self._place)
        found.skipped.update(manifest.skipped)
        for rows in self._all(LISTING.names):
            batch = rows.combine_chunks().to_batches()[0].cast(LISTING)
            found.listed.update(batch["split"].to_pylist())
            yield batch

    def names(self) -> Iterator[bytes]:
        """The names of the images."""
        for rows in self._all(["path"]):
            for path in rows["path"].to_pylist():
                yield from_text(path).rpartition(b"/")[2]

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The image that was packed, to the byte.

        Raises:
            ImageError: with the reason; also that for which it could not be packed.
        """
        facts = self._facts(path)
        if facts["reason"] is not None:
            raise ImageError(cast(Reason, facts["reason"]), facts["message"])
        if facts["length"] > max_bytes:
            raise ImageError("too_many_bytes", f"{facts['length']} bytes are more than {max_bytes}")
        data = self._pages.image(facts)
        progress()
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            file = part_file(facts["part"])
            raise ImageError("unreadable", f"{file} is damaged, and holds other bytes: pack again with --overwrite")
        return data

    @contextmanager
    def _index(self, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        options = {"page_checksum_verification": True, "pre_buffer": True, "metadata": metadata}
        try:
            with self._store.open(self._name) as file, pq.ParquetFile(file, **options) as index:
                yield index
        except (pa.ArrowException, OSError, ValueError) as error:
            text = str(error).partition("\n")[0]
            raise InputError(f"{self._place}/{self._name} is damaged ({text}): pack the images again") from error
        except StorageError as error:
            raise InputError(str(error)) from error

    def _all(self, columns: list[str]) -> Iterator[pa.Table]:
        with self._index() as index:
            for number in range(index.num_row_groups):
                yield index.read_row_group(number, columns=columns)

    @cached_property
    def _metadata(self) -> tuple[pq.FileMetaData, list[bytes]]:
        """What the index tells of its row groups, and the first path of each."""
        with self._index() as index:
            paths = json.loads((index.metadata.metadata or {}).get(FIRST_PATHS, b""))
            if not isinstance(paths, list) or len(paths) != index.num_row_groups:
                raise ValueError("it does not say where its rows begin")
            return index.metadata, [from_text(str(path)) for path in paths]

    def _facts(self, path: str) -> dict[str, Any]:
        """What the index says of an image."""
        with self._lock:
            metadata, first = self._metadata
            number = max(0, bisect_right(first, from_text(path)) - 1)
            rows = self._groups.get(number)
            if rows is None:
                with self._index(metadata) as index:
                    rows = {row["path"]: row for row in index.read_row_group(number).to_pylist()}
                self._groups[number] = rows
                while len(self._groups) > _GROUPS:
                    self._groups.popitem(last=False)
        if path not in rows:
            raise ImageError("vanished", "there is no such image in the pack")
        return _sound(rows[path])


def _sound(facts: dict[str, Any]) -> dict[str, Any]:
    """What an index says, which somebody else may have made: it names a part, and reads no more than there is.

    Raises:
        ImageError: it does not.
    """
    if facts["reason"] is not None:
        return facts if facts["reason"] in REASONS else {**facts, "reason": "unreadable"}
    numbers = [facts[name] for name in ("at", "length", "page", "page_bytes")]
    is_sound = all(isinstance(number, int) and number >= 0 for number in numbers)
    if not (is_sound and _PART.fullmatch(facts["part"] or "")):
        raise ImageError("unreadable", "the index of the pack does not say where it is: pack again with --overwrite")
    return facts


@dataclass
class _Page:
    """A page that somebody has asked an image of; its bytes, once somebody has asked for another."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    is_first: bool = True
    data: bytes | None = None


class _Pages:
    """Pages of parts.

    The first image that is asked of one comes alone: whoever asks for a few, here and there, need not wait for a
    megabyte each. With the second all of it comes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[str, int], _Page] = OrderedDict()

    def image(self, facts: dict[str, Any]) -> bytes:
        """The bytes of an image.

        Raises:
            ImageError: they cannot be read.
        """
        page = self._page((facts["part"], facts["page"]))
        with page.lock:
            if page.is_first or facts["page_bytes"] > _MOST_PAGE:
                page.is_first = False
                return self._read(facts, facts["at"], facts["length"])
            if page.data is None:
                page.data = self._read(facts, facts["page"], facts["page_bytes"])
        start = facts["at"] - facts["page"]
        return page.data[start : start + facts["length"]]

    def _page(self, key: tuple[str, int]) -> _Page:
        with self._lock:
            page = self._pages.setdefault(key, _Page())
            self._pages.move_to_end(key)
            while len(self._pages) > _PAGES:
                self._pages.popitem(last=False)
            return page

    def _read(self, facts: dict[str, Any], at: int, length: int) -> bytes:
        try:
            return self._store.read(part_file(facts["part"]), at, length)
        except (SetupError, ConfigError):
            raise
        except FileNotFoundError as error:
            raise ImageError("vanished", f"{part_file(facts['part'])} is gone: pack the images again") from error
        except OSError as error:
            raise ImageError("unreadable", error.strerror or str(error)) from error
        except Mission9Error as error:
            raise ImageError("unreadable", str(error)) from error
