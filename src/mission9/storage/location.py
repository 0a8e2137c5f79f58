"""Resolve user-supplied places: folders, s3:// addresses, and URLs of fsspec (gs://, abfs://, hdfs://, ftp://, ...)."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from mission9.errors import ConfigError
from mission9.storage.s3.address import Address, is_s3

_URL = re.compile(r"[a-zA-Z][\w+.-]*://")
_HALF_URL = re.compile(r"[a-zA-Z][\w+.-]+:/")
_FILE = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_USER = re.compile(r"[^/]*@")

# The listings of web servers are unreliable.
_NO_STORES = ("http", "https")

_AT_ACCOUNT = ("abfs", "abfss", "wasb", "wasbs")  # CONTAINER@ACCOUNT, which is no secret

_S3 = ("s3", "s3a")  # Hadoop's name for the same
# The schemes of stores that results can be written to.
WRITABLE = set(_S3)


def scheme_of(place: str | Path) -> str:
    """The scheme of a URL, in lower case; empty for a path."""
    found = _URL.match(place) if isinstance(place, str) else None
    return found[0].partition(":")[0].lower() if found else ""


def is_url(place: str | Path) -> bool:
    """Return True if a place is a URL of an fsspec store."""
    return scheme_of(place) not in ("", *_S3)


def as_text(place: object) -> object:
    """The text of a path object; any other value is unchanged.

    Raises:
        ConfigError: the path was made from a URL, of which pathlib drops a slash.
    """
    if not isinstance(place, PathLike):
        return place
    text = os.fsdecode(place)
    if _HALF_URL.match(text):
        raise ConfigError(f"{text} is a URL turned into a path: pass it as a string")
    return text


def without_file(place: str) -> str:
    """The path of a file:// URL; any other text is unchanged."""
    return unquote(_FILE.sub("", place, count=1)) if _FILE.match(place) else place


def store_url(place: str) -> str:
    """The URL in the form that is sent to workers.

    Raises:
        ConfigError: it holds credentials, names a web server, or is not valid.
    """
    try:
        parts, links = urlsplit(place), [urlsplit(link) for link in place.split("::")]
    except ValueError as error:
        raise ConfigError(f"{place} is not a valid URL ({error}): pass the folder of your images, or a URL") from error
    for link in links:
        _check(link, place)
    return place.rstrip("/") if parts.path.strip("/") else place


def _check(parts: SplitResult, place: str) -> None:
    """Check one link of a chained URL; zip://images::ftp://host/archive.zip has two.

    Raises:
        ConfigError: it holds credentials, or names a web server.
    """
    if _USER.match(parts.netloc) and parts.scheme.lower() not in _AT_ACCOUNT:
        name = f"FSSPEC_{parts.scheme.upper()}_USERNAME"
        raise ConfigError(
            f"credentials are not allowed in a URL: set them in the environment, as {name} for fsspec's username, or "
            "in fsspec's own settings"
        )
    if parts.scheme.lower() in _NO_STORES:
        raise ConfigError(f"{place} is on a web server, which has no folders: download the images to a folder")


def normalized(place: str, *, any_store: bool = True) -> str:
    """The canonical text of a place: a path, s3://bucket/prefix, or a URL if `any_store` is set.

    Raises:
        ConfigError: the text is not a valid URL, or one that is not allowed.
        ValueError: it is a URL of a store that is supported for images only.
    """
    place = without_file(place)
    if is_s3(place):
        return str(Address.of(place))
    if not is_url(place):
        return place
    if not any_store and scheme_of(place) not in WRITABLE:
        raise ValueError("only local folders and s3:// URLs are supported for this option")
    return store_url(place)


def real_root(place: str) -> str:
    """Resolve a place to one text for all folders and processes: `normalized`, with paths absolute, without links."""
    place = normalized(place)
    return place if local_path(place) is None else os.path.realpath(place)


def local_path(place: str) -> Path | None:
    """The path of a place on this machine, without a request to any server; None for a URL."""
    place = without_file(place)
    return None if is_s3(place) or is_url(place) else Path(place)
