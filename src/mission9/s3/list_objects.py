"""A prefix -> what is below it, in the order of the keys' bytes; prefixes are listed many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from queue import Full, Queue
from threading import Event
from typing import NamedTuple

from mission9.errors import InputError
from mission9.s3.address import Address
from mission9.s3.listings import PAGE_KEYS, list_below, list_level
from mission9.s3.objects import Listed
from mission9.stages.list_images import SPLIT_FOLDERS

# Prefixes listed at a time, and pages of each that may wait for their turn: at most 16 x 4 x 1000 keys in memory.
_LISTERS, _PAGES = 16, 4

_SECOND = 1_000_000_000


class Entry(NamedTuple):
    """An object below a prefix: the rest of its key, its size, and when it changed."""

    path: str
    size: int
    modified: int


def list_objects(root: Address, *, leave_out: Address | None = None) -> Iterator[Entry]:
    """Every object below a prefix but those below `leave_out`, in the order of the keys' bytes.

    Raises:
        InputError: they cannot be listed.
    """
    if leave_out is not None and leave_out.bucket != root.bucket:  # whose keys say nothing of those here
        leave_out = None
    with closing(_pages(_places(root), leave_out)) as pages:
        for page in pages:
            for found in page:
                yield Entry(root.relative(found.key), found.size, _changed(found))


def _changed(found: Listed) -> int:
    """Nanoseconds since 1970; below the second, of the ETag.

    Servers tell whole seconds. So an object that takes the place of another within one, as long as that, is seen to
    be another.
    """
    digits = "".join(c for c in found.etag if c in "0123456789abcdef")[:12]
    return int(found.modified.timestamp()) * _SECOND + int(digits or "0", 16) % _SECOND


Place = Address | list[Listed]


def folders_in(root: Address) -> set[str]:
    """The names of the prefixes directly below one; of more than a page of objects alone it is taken to have none.

    Raises:
        InputError: they cannot be listed.
    """
    first = _first_page(root)
    if len(first) == PAGE_KEYS and not _is_flat(first, root):
        return {prefix.name for prefix in list_level(root, InputError)[1]}
    paths = [root.relative(found.key) for found in first]
    return {path.partition("/")[0] for path in paths if "/" in path}


def _places(root: Address) -> Iterator[Place]:
    """Prefixes to list, and objects between them, in order: the labels, also of splits.

    A prefix of one page, or of objects alone, is not looked into: a million images in one folder must not be in memory.
    """
    first = _first_page(root)
    if len(first) < PAGE_KEYS:
        yield first
    elif _is_flat(first, root):
        yield root
    else:
        objects, prefixes = list_level(root, InputError)
        # With the slash a prefix sorts as the keys below it do.
        there: list[tuple[str, Listed | Address]] = [(found.key, found) for found in objects]
        there += [(f"{place.key}/", place) for place in prefixes]
        for _, found in sorted(there, key=lambda pair: pair[0].encode()):
            if isinstance(found, Listed):
                yield [found]
            elif found.name.lower() in SPLIT_FOLDERS:
                yield from _places(found)
            else:
                yield found


def _first_page(root: Address) -> list[Listed]:
    return next(list_below(root, InputError), [])


def _is_flat(page: list[Listed], root: Address) -> bool:
    return not any("/" in root.relative(found.key) for found in page)


def _pages(places: Iterable[Place], leave_out: Address | None) -> Generator[list[Listed], None, None]:
    """The pages of all places, in order, each listed by a thread of its own, a bounded way ahead."""
    waiting: deque[_Lister | list[Listed]] = deque()
    ended = Event()
    with ThreadPoolExecutor(_LISTERS) as pool:
        try:
            for place in chain(places, [None]):
                if place is not None:
                    waiting.append(place if isinstance(place, list) else _Lister(place, pool, ended))
                while waiting and (place is None or len(waiting) > _LISTERS):
                    for page in _taken(waiting.popleft()):
                        yield [found for found in page if leave_out is None or not _is_below(found, leave_out)]
        finally:
            ended.set()


def _taken(place: _Lister | list[Listed]) -> Iterator[list[Listed]]:
    return iter([place]) if isinstance(place, list) else place.pages()


def _is_below(found: Listed, prefix: Address) -> bool:
    return found.key.startswith(f"{prefix.key}/")


class _Lister:
    """A prefix that a thread lists; its pages wait in a queue, whose end is None."""

    def __init__(self, prefix: Address, pool: ThreadPoolExecutor, ended: Event) -> None:
        self._queue: Queue[list[Listed] | None] = Queue(_PAGES)
        self._ended = ended
        self._work: Future[None] = pool.submit(self._list, prefix)

    def _list(self, prefix: Address) -> None:
        try:
            for page in list_below(prefix, InputError):
                self._offer(page)
        finally:
            self._offer(None)

    def _offer(self, page: list[Listed] | None) -> None:
        """Wait for room, unless nobody takes what comes."""
        while not self._ended.is_set():
            try:
                self._queue.put(page, timeout=0.2)
            except Full:
                continue
            return

    def pages(self) -> Iterator[list[Listed]]:
        """Its pages in order, and what went wrong."""
        while (page := self._queue.get()) is not None:
            yield page
        self._work.result()
