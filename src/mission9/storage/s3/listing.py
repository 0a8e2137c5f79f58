"""List the objects below a prefix, recursively or one level; errors are one line each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from mission9.errors import Mission9Error, StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.client import store_of
from mission9.storage.s3.errors import error_kind, translate_errors
from mission9.storage.s3.objects import ObjectInfo, tried
from mission9.storage.s3.raw_keys import can_be_used, is_odd, odd_level, odd_pages

PAGE_KEYS = 1000  # keys in a page of a server's listing

Level = tuple[list[ObjectInfo], list[Address]]  # the objects directly below a prefix, and the prefixes there


def list_below(address: Address, kind: type[Mission9Error] = StorageError) -> Iterator[list[ObjectInfo]]:
    """The objects below a prefix, sorted by their keys' bytes, a page at a time.

    Raises:
        Mission9Error: (`kind`) they cannot be listed.
    """
    last: str | None = None
    pages = _pages_after(address, last)

    def next_page() -> Any:
        nonlocal pages
        try:
            return next(pages, None)
        except Exception as failure:
            is_of_names = error_kind(failure) == "unusable key" and can_be_used()
            # A truncated listing resumes after its last key.
            pages = (odd_pages if is_of_names else _pages_after)(address, last)
            if is_of_names:
                return next(pages, None)
            raise

    with translate_errors(address, kind):
        while page := tried(next_page):
            last = page[-1]["path"]
            yield [ObjectInfo.of(facts) for facts in page]


def _pages_after(address: Address, key: str | None) -> Iterator[Any]:
    import obstore

    if is_odd(address.key) and can_be_used():
        return odd_pages(address, key)
    return iter(obstore.list(store_of(address.bucket), address.key or None, offset=key, chunk_size=PAGE_KEYS))


def list_level(address: Address, kind: type[Mission9Error] = StorageError) -> Level:
    """The objects and prefixes directly below a prefix, by one listing.

    Raises:
        Mission9Error: (`kind`) they cannot be listed.
    """
    with translate_errors(address, kind):
        found = tried(partial(_level, address))
    return _of(found, address)


def list_small_level(address: Address, most: int, kind: type[Mission9Error] = StorageError) -> Level | None:
    """Like `list_level`, but None for more than `most` entries, without listing them all as obstore would.

    Raises:
        Mission9Error: (`kind`) they cannot be listed.
    """
    if not can_be_used():
        return list_level(address, kind)
    with translate_errors(address, kind):
        found = tried(partial(odd_level, address, most))
    return None if found is None else _of(found, address)


def _of(found: Any, address: Address) -> Level:
    prefixes = [Address(address.bucket, prefix) for prefix in found["common_prefixes"]]
    return [ObjectInfo.of(facts) for facts in found["objects"]], prefixes


def _level(address: Address) -> Any:
    import obstore

    try:
        if not is_odd(address.key):
            return obstore.list_with_delimiter(store_of(address.bucket), address.key or None)
    except Exception as failure:
        if error_kind(failure) != "unusable key" or not can_be_used():
            raise
    return odd_level(address)
