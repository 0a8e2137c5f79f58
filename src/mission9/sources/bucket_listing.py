"""A prefix -> the objects below it, in the order of the keys' bytes; prefixes are listed concurrently."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from queue import Full, Queue
from threading import Event
from typing import NamedTuple

from mission9.errors import InputError
from mission9.schema import listed_time
from mission9.sources.layout import split_named
from mission9.storage.s3.address import Address
from mission9.storage.s3.listing import PAGE_KEYS, Level, list_below, list_small_level
from mission9.storage.s3.objects import ObjectInfo

# Prefixes listed at a time, and pages of each that may be queued: at most 16 x 4 x 1000 keys in memory.
_LISTERS, _PAGES = 16, 4

# Objects and sibling prefixes held in memory; a larger level is listed recursively in one go, page by page.
_MAX_OF_A_LEVEL = 50_000

_SECOND = 1_000_000_000


class Entry(NamedTuple):
    """An object below a prefix: the rest of its key, its size, and its modification time."""

    path: str
    size: int
    modified: int


@dataclass(frozen=True)
class Top:
    """The known contents directly below a prefix: everything, one level, or nothing.

    A prefix of one page, or of objects only, is not listed by level, nor a very large one: a million images in one
    folder must not be in memory.
    """

    root: Address
    objects: list[ObjectInfo] | None = None
    level: Level | None = None

    @staticmethod
    def of(root: Address) -> Top:
        """List a prefix, as far as needed.

        Raises:
            InputError: it cannot be listed.
        """
        first = next(list_below(root, InputError), [])
        if len(first) < PAGE_KEYS:
            return Top(root, objects=first)
        is_flat = not any("/" in root.relative(found.key) for found in first)
        return Top(root, level=None if is_flat else list_small_level(root, _MAX_OF_A_LEVEL, InputError))

    @property
    def folders(self) -> set[str]:
        """The names of the prefixes directly below; empty if unknown."""
        if self.level is not None:
            return {prefix.name for prefix in self.level[1]}
        paths = [self.root.relative(found.key) for found in self.objects or ()]
        return {path.partition("/")[0] for path in paths if "/" in path}

    @property
    def objects_there(self) -> list[ObjectInfo]:
        """The known objects directly below the prefix."""
        if self.level is not None:
            return self.level[0]
        return [found for found in self.objects or () if "/" not in self.root.relative(found.key)]


def list_objects(top: Top, *, exclude: Address | None = None) -> Iterator[Entry]:
    """Every object below a prefix except those below `exclude`, in the order of the keys' bytes.

    Raises:
        InputError: they cannot be listed.
    """
    root = top.root
    if exclude is not None and exclude.bucket != root.bucket:  # its keys are unrelated
        exclude = None
    with closing(_pages(_places(top), exclude)) as pages:
        for page in pages:
            for found in page:
                yield Entry(root.relative(found.key), found.size, _changed(found))


def _changed(found: ObjectInfo) -> int:
    """The modification time in nanoseconds since 1970, with a fraction of a second derived from the ETag.

    Servers report whole seconds. The fraction distinguishes an object from one that replaces it within a second with
    the same size.
    """
    digits = "".join(c for c in found.etag if c in "0123456789abcdef")[:12]
    return listed_time(int(found.modified.timestamp()) * _SECOND + int(digits or "0", 16) % _SECOND)


Place = Address | list[ObjectInfo]


def _places(top: Top) -> Iterator[Place]:
    """Prefixes to list, and objects between them, in order: the labels, including those of splits."""
    if top.objects is not None:
        yield top.objects
    elif top.level is None:
        yield top.root
    else:
        objects, prefixes = top.level
        # With its slash a prefix sorts like the keys below it.
        there: list[tuple[str, ObjectInfo | Address]] = [(found.key, found) for found in objects]
        there += [(f"{place.key}/", place) for place in prefixes]
        for _, found in sorted(there, key=lambda pair: pair[0].encode()):
            if isinstance(found, ObjectInfo):
                yield [found]
            elif split_named(found.name):
                yield from _places(Top.of(found))
            else:
                yield found


def _pages(places: Iterable[Place], exclude: Address | None) -> Generator[list[ObjectInfo], None, None]:
    """The pages of all places, in order, each listed by its own thread, a bounded number ahead."""
    waiting: deque[_Lister | list[ObjectInfo]] = deque()
    ended = Event()
    with ThreadPoolExecutor(_LISTERS) as pool:
        try:
            for place in chain(places, [None]):
                if place is not None:
                    waiting.append(place if isinstance(place, list) else _Lister(place, pool, ended))
                while waiting and (place is None or len(waiting) > _LISTERS):
                    for page in _taken(waiting.popleft()):
                        yield [found for found in page if exclude is None or not _is_below(found, exclude)]
        finally:
            ended.set()


def _taken(place: _Lister | list[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    return iter([place]) if isinstance(place, list) else place.pages()


def _is_below(found: ObjectInfo, prefix: Address) -> bool:
    return found.key.startswith(f"{prefix.key}/")


class _Lister:
    """A prefix listed by a thread; its pages are queued, with None at the end."""

    def __init__(self, prefix: Address, pool: ThreadPoolExecutor, ended: Event) -> None:
        self._queue: Queue[list[ObjectInfo] | None] = Queue(_PAGES)
        self._ended = ended
        self._work: Future[None] = pool.submit(self._list, prefix)

    def _list(self, prefix: Address) -> None:
        try:
            for page in list_below(prefix, InputError):
                self._offer(page)
        finally:
            self._offer(None)

    def _offer(self, page: list[ObjectInfo] | None) -> None:
        """Wait for space in the queue, unless the consumer has ended."""
        while not self._ended.is_set():
            try:
                self._queue.put(page, timeout=0.2)
            except Full:
                continue
            return

    def pages(self) -> Iterator[list[ObjectInfo]]:
        """The pages in order; an error of the thread is raised here."""
        while (page := self._queue.get()) is not None:
            yield page
        self._work.result()
