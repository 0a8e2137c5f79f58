"""Count the images with personal metadata by kind, in a folder or a bucket prefix."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from mission9.decoding.metadata import KINDS, Kind, MetadataReader
from mission9.errors import ImageError
from mission9.options import MAX_BYTES
from mission9.sources import find_root, open_source
from mission9.sources.base import Root
from mission9.sources.list_images import list_images
from mission9.sources.listing import Listing, ListingCounts


@dataclass
class Audit:
    """Counts of checked images: with each kind of metadata, with any kind, and unreadable."""

    images: int = 0
    carriers: int = 0
    unreadable: int = 0
    kinds: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))


def audit_images(place: str, *, all_files: bool = False) -> Audit:
    """Count the images below a place that carry metadata, without decoding pixels or reporting names.

    Raises:
        InputError: the folder does not exist, or cannot be read.
    """
    root, audit = find_root(place), Audit()
    outcomes: Counter[frozenset[Kind] | None] = Counter()
    with ExitStack() as readers, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        work = partial(_kinds, root, threading.local(), readers)
        for path_batch in _paths(root, all_files=all_files):
            outcomes.update(pool.map(work, path_batch))
    for kinds, count in outcomes.items():
        audit.images += count
        audit.unreadable += count if kinds is None else 0
        audit.carriers += count if kinds else 0
        for kind in kinds or ():
            audit.kinds[kind] += count
    return audit


def _paths(root: Root, *, all_files: bool) -> Iterator[list[str]]:
    for batch in list_images(root, ListingCounts(), Listing(all_files=all_files, splits_from="folders")):
        yield batch["path"].to_pylist()


def _kinds(root: Root, own: threading.local, readers: ExitStack, path: str) -> frozenset[Kind] | None:
    """The kinds of metadata of an image; None if it cannot be read. Each thread has its own reader."""
    if not hasattr(own, "reader"):
        own.reader = readers.enter_context(MetadataReader())
    try:
        return frozenset(own.reader.kinds(open_source(root).read(path, max_bytes=MAX_BYTES)))
    except ImageError:
        return None
