"""A pack as a source of images: the index locates an image's bytes; pages in repeated use are fetched as a whole.

A pack may be updated while it is read. Its old index is then deleted, and so are rewritten parts: a reader that misses
one looks it up again in the current pack.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import pyarrow as pa

from mission9.concurrency.watchdog import progress
from mission9.errors import ConfigError, ImageError, InputError, Mission9Error, Reason, SetupError
from mission9.schema import LISTING
from mission9.sources.listing import Listing, ListingCounts
from mission9.sources.pack.index import Gone, Index
from mission9.sources.pack.layout import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Manifest,
    find_index,
    part_file,
    split_index,
)
from mission9.storage.file_store import FileStore, file_store, is_missing
from mission9.storage.local.names import from_text

# Pages cached for each source in a process, of a megabyte each.
_PAGES = 16
_MAX_PAGE = 8 * 1024 * 1024  # of one large image, or of a hostile index


class PackSource:
    """The images of a pack, from the index of the time when the root was resolved; or a later one if that has gone."""

    def __init__(self, root: str) -> None:
        self._place, name = split_index(root)
        self._store: FileStore = file_store(self._place)
        self._lock = threading.Lock()
        self._index = Index(self._store, name)
        self._pages = _Pages(self._store)
        self.ahead = self._store.ahead

    def check(self) -> None:
        """Do nothing: a resolved pack exists."""

    def rows(self, found: ListingCounts, listing: Listing) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """The listing from which the pack was made, with its skipped files; exclusions then remain excluded.

        Raises:
            InputError: the index is damaged, or has disappeared.
        """
        manifest = Manifest.of(self._store.read(MANIFEST, MAX_MANIFEST_BYTES) or b"", self._place)
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

    def deletable(self) -> NoReturn:
        raise ConfigError(
            f"{self._place} is a pack: delete the images from its source, pack them again, and erase without --source"
        )

    def file(self, path: str) -> None:  # noqa: ARG002
        return None

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The image as it was packed, byte for byte.

        Raises:
            ImageError: it cannot be read, or was rejected when the pack was made.
        """
        index: Index | None = self._index
        while index is not None:
            try:
                return self._image(index, path, max_bytes)
            except Gone as error:
                gone, index = error, self._index_after(index)
        raise ImageError("vanished", f"{gone}: pack the images again") from gone

    def _image(self, index: Index, path: str, max_bytes: int) -> bytes:
        facts = index.facts(path)
        if facts["reason"] is not None:
            raise ImageError(cast(Reason, facts["reason"]), facts["message"])
        if facts["length"] > max_bytes:
            raise ImageError("too_many_bytes", f"{facts['length']} bytes exceed the limit of {max_bytes}")
        data = self._pages.image(facts)
        progress()
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            file = part_file(facts["part"])
            raise ImageError("unreadable", f"{file} is damaged and holds other bytes: pack again with --overwrite")
        return data

    def _index_after(self, index: Index) -> Index | None:
        """The index of the current pack, if it differs from this one."""
        with self._lock:
            if self._index is index:
                root = find_index(self._place)
                name = split_index(root)[1] if root is not None else index.name
                self._index = Index(self._store, name) if name != index.name else index
            return self._index if self._index is not index else None

    def _all(self, columns: list[str]) -> Iterator[pa.Table]:
        try:
            yield from self._index.tables(columns)
        except Gone as gone:
            raise InputError(f"{gone}, since the pack was updated during the run: rerun the same command") from gone


@dataclass
class _Page:
    """A page of which one image was requested; its bytes are fetched at the second request."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    is_first: bool = True
    data: bytes | None = None


class _Pages:
    """Pages of parts, fetched lazily.

    The first image of a page is fetched alone, so that scattered reads do not cost a megabyte each. The second request
    fetches the whole page.
    """

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[str, int], _Page] = OrderedDict()

    def image(self, facts: dict[str, Any]) -> bytes:
        """Read the bytes of an image.

        Raises:
            ImageError: they cannot be read.
            Gone: their part has disappeared.
        """
        page = self._page((facts["part"], facts["page"]))
        with page.lock:
            if page.is_first or facts["page_bytes"] > _MAX_PAGE:
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
            return self._store.read_range(part_file(facts["part"]), at, length)
        except (SetupError, ConfigError):
            raise
        except (OSError, Mission9Error) as error:
            if is_missing(error):
                raise Gone(f"{part_file(facts['part'])} has disappeared") from error
            text = error.strerror if isinstance(error, OSError) else None
            raise ImageError("unreadable", text or str(error)) from error
