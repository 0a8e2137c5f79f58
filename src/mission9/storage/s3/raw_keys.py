"""Keys that obstore cannot address: with empty parts, `.`, `..` or control characters. boto3 lists and reads them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from mission9.storage.s3.address import Address
from mission9.storage.s3.admin_client import control

_DELETE = 0x7F


def is_odd(key: str) -> bool:
    """Return True if obstore cannot address a key. The empty key, of a bucket itself, is fine."""
    return bool(key) and any(
        part in ("", ".", "..") or any(ord(c) < ord(" ") or ord(c) == _DELETE for c in part) for part in key.split("/")
    )


def can_be_used() -> bool:
    """Return True if boto3 is installed."""
    return importlib.util.find_spec("boto3") is not None


def odd_read(address: Address) -> tuple[Iterator[bytes], int]:
    """The body of an object, chunk by chunk, and its size in bytes."""
    found = _client(os.getpid()).get_object(Bucket=address.bucket, Key=address.key)
    return found["Body"].iter_chunks(1 << 20), found["ContentLength"]


def odd_head(address: Address) -> dict[str, Any]:
    """The description of one object, in obstore's form."""
    found = _client(os.getpid()).head_object(Bucket=address.bucket, Key=address.key)
    return _facts({**found, "Key": address.key, "Size": found["ContentLength"]})


def odd_pages(address: Address, after: str | None) -> Iterator[list[dict[str, Any]]]:
    """The objects below a prefix after a key, a page at a time, in obstore's form."""
    for page in _paginated(address, Prefix=_prefix(address), StartAfter=after or ""):
        if page.get("Contents"):  # servers return empty pages in between, which callers would take for the end
            yield [_facts(found) for found in page["Contents"]]


def odd_level(address: Address, most: int | None = None) -> dict[str, Any] | None:
    """The objects and prefixes directly below a prefix, in obstore's form; None for more than `most`."""
    objects: list[dict[str, Any]] = []
    prefixes: list[str] = []
    for page in _level_pages(address):
        objects += [_facts(found) for found in page.get("Contents", [])]
        prefixes += [found["Prefix"][:-1] for found in page.get("CommonPrefixes", [])]
        if most is not None and len(objects) + len(prefixes) > most:
            return None
    return {"objects": objects, "common_prefixes": [prefix for prefix in prefixes if prefix]}


def _level_pages(address: Address) -> Iterator[dict[str, Any]]:
    has_slashes = False
    for page in _paginated(address, Prefix=_prefix(address), Delimiter="/"):
        has_slashes |= any(found["Prefix"] == "/" for found in page.get("CommonPrefixes", []))
        yield page
    if has_slashes:  # of keys with leading slashes: only the bucket's address is above them
        yield from _paginated(address, Prefix="/")


def _prefix(address: Address) -> str:
    return f"{address.key}/" if address.key else ""


def _paginated(address: Address, **options: str) -> Iterator[dict[str, Any]]:
    paginator = _client(os.getpid()).get_paginator("list_objects_v2")
    pages: Iterator[dict[str, Any]] = iter(paginator.paginate(Bucket=address.bucket, **options))
    return pages


def _facts(found: dict[str, Any]) -> dict[str, Any]:
    key = found["Key"].removesuffix("/")  # a folder's placeholder object has its name, in obstore too
    return {"path": key, "size": found["Size"], "last_modified": found["LastModified"], "e_tag": found["ETag"]}


@lru_cache(maxsize=1)
def _client(process: int) -> Any:  # noqa: ARG001 (a key: a client must not be used after a fork)
    return control()
