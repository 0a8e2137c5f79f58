"""Sources of images, and the reading of their bytes: a folder, a bucket, a pack, or an fsspec store.

A source is identified by its `Root`, which is sent to workers; `find_root` makes it from a user-supplied place.
"""

from __future__ import annotations

from functools import lru_cache

from mission9.sources.base import Root, Source
from mission9.sources.bucket import Bucket
from mission9.sources.folder import Folder
from mission9.sources.pack.layout import find_index, is_index
from mission9.storage.location import is_url, real_root, store_url, without_file
from mission9.storage.s3.address import is_s3


def find_root(place: str) -> Root:
    """Resolve a place like `resolve_root`, if it can contain images.

    Raises:
        InputError: it does not exist, is not a folder, or is a damaged pack, or a bucket does not answer.
    """
    open_source(Root(place)).check()  # not resolved, so that errors name the place as given
    return resolve_root(place)


def resolve_root(place: str) -> Root:
    """Resolve a user-supplied place to a root, valid in every folder and process; for a pack, of its current content.

    Raises:
        InputError: it is a damaged pack, or a bucket does not answer.
    """
    root = real_root(place)
    return Root(root if is_index(root) or is_url(root) else find_index(root) or root)


@lru_cache(maxsize=8)
def open_source(root: Root) -> Source:
    """Open the source of a root; it is cached with its state."""
    place = without_file(root)
    if is_index(place):
        from mission9.sources.pack.source import PackSource  # other runs do not need it

        return PackSource(place)
    if is_url(place):
        from mission9.sources.fsspec import FsspecSource

        return FsspecSource(store_url(place))  # raises for invalid URLs
    return Bucket(place) if is_s3(place) else Folder(place)
