"""Sources of images, and the reading of their bytes: a folder, a bucket, a pack, or an fsspec store.

A source is identified by its root, a text that is sent to workers; `resolve_root` makes it from a user-supplied place.
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
    """Resolve a user-supplied place to a root, valid in every folder and process; for a pack, of its current content.

    Raises:
        InputError: it is a damaged pack, or a bucket does not answer.
    """
    root = real_root(place)
    return root if is_index(root) or is_url(root) else find_index(root) or root


@lru_cache(maxsize=8)
def open_source(root: str) -> Source:
    """Open the source of a root; it is cached with its state."""
    root = without_file(root)
    if is_index(root):
        from mission9.sources.pack.source import PackSource  # other runs do not need it

        return PackSource(root)
    if is_url(root):
        from mission9.sources.fsspec import FsspecSource

        return FsspecSource(store_url(root))  # raises for invalid URLs
    return Bucket(root) if is_s3(root) else Folder(root)
