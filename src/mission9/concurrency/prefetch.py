"""Ordered, bounded prefetching with a thread pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

# Prefetched images: bounded in number, and in bytes for each thread.
AHEAD_IMAGES = 64
AHEAD_BYTES = 32 * 1024 * 1024
READERS = 2

# Objects in a bucket: requests wait for the network, so many run concurrently.
REMOTE_READERS = 32
REMOTE_AHEAD_BYTES = 4 * 1024 * 1024


class Sized(Protocol):
    """An item with a size in bytes."""

    @property
    def size(self) -> int: ...


Given = TypeVar("Given", bound=Sized)
Item = TypeVar("Item")


class PrefetchLimits(NamedTuple):
    """The limits of prefetching: the number of threads and of items."""

    threads: int
    images: int = AHEAD_IMAGES
    bytes_a_thread: int = AHEAD_BYTES


LOCAL = PrefetchLimits(READERS)
REMOTE = PrefetchLimits(REMOTE_READERS, 2 * AHEAD_IMAGES, REMOTE_AHEAD_BYTES)


def prefetch_map(items: Iterable[Given], work: Callable[[Given], Item], ahead: PrefetchLimits) -> Iterator[Item]:
    """`map(work, items)` in threads, in order, a bounded number of items ahead."""
    waiting: deque[tuple[Future[Item], int]] = deque()
    size = 0
    with ThreadPoolExecutor(ahead.threads) as pool:
        for item in items:
            waiting.append((pool.submit(work, item), item.size))
            size += item.size
            while len(waiting) > ahead.images or size > ahead.threads * ahead.bytes_a_thread:
                future, done = waiting.popleft()
                size -= done
                yield future.result()
        while waiting:
            yield waiting.popleft()[0].result()
