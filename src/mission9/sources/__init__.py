"""Sources of images, and how their bytes are read: a folder, a bucket, a pack, or a store of fsspec.

A source is named by a text, its root, which is what travels to workers; `resolve_root` makes it of what users give.
"""

from __future__ import annotations

from functools import lru_cache

from mission9.sources.base import Source
from mission9.sources.bucket import Bucket
from mission9.sources.folder import Folder
from mission9.sources.pack.layout import find_index, is_index
from mission9.storage.location import is_url, real_root, store_url, without_file
from mission9.storage.s3.address import is_s3


def resolve_root(place: str) -> str:
    """The root of what a user names, the same from every folder and process; of a pack, what it holds at this moment.

    Raises:
        InputError: it is a pack that is damaged, or a bucket does not say.
    """
    root = real_root(place)
    return root if is_index(root) or is_url(root) else find_index(root) or root


@lru_cache(maxsize=8)
def open_source(root: str) -> Source:
    """The source that a root names; it stays, with what it knows, for the next who asks."""
    root = without_file(root)
    if is_index(root):
        from mission9.sources.pack.source import PackSource  # loads what other runs do not need

        return PackSource(root)
    if is_url(root):
        from mission9.sources.fsspec import FsspecSource

        return FsspecSource(store_url(root))  # which refuses what a URL may not hold
    return Bucket(root) if is_s3(root) else Folder(root)
