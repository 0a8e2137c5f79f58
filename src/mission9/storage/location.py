"""Addresses in other stores than S3: gs://, abfs://, hdfs://, ftp:// and what else fsspec knows."""

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

# A web server does not say what it holds in a way that can be relied on.
_NO_STORES = ("http", "https")

_AT_ACCOUNT = ("abfs", "abfss", "wasb", "wasbs")  # CONTAINER@ACCOUNT, which is no secret

_S3 = ("s3", "s3a")  # as Hadoop calls the same
# The schemes of stores that results can be written to.
WRITABLE = set(_S3)


def scheme_of(place: str | Path) -> str:
    """The scheme of an address, in lower case; empty for a path."""
    found = _URL.match(place) if isinstance(place, str) else None
    return found[0].partition(":")[0].lower() if found else ""


def is_url(place: str | Path) -> bool:
    """Tell whether a place is in a store of fsspec."""
    return scheme_of(place) not in ("", *_S3)


def as_text(place: object) -> object:
    """A path of pathlib's, or of another of the kind, as text; what else there is as it is.

    Raises:
        ConfigError: it was made of an address, of which pathlib keeps one slash.
    """
    if not isinstance(place, PathLike):
        return place
    text = os.fsdecode(place)
    if _HALF_URL.match(text):
        raise ConfigError(f"{text} was an address before it became a path: give it as text")
    return text


def without_file(place: str) -> str:
    """The path of a file:// address; what else there is as it is."""
    return unquote(_FILE.sub("", place, count=1)) if _FILE.match(place) else place


def store_url(place: str) -> str:
    """The address as it travels to workers.

    Raises:
        ConfigError: it holds credentials, is of a web server, or is no address.
    """
    try:
        parts, links = urlsplit(place), [urlsplit(link) for link in place.split("::")]
    except ValueError as error:
        raise ConfigError(f"{place} is no address ({error}): give the folder of your images, or a URL") from error
    for link in links:
        _check(link, place)
    return place.rstrip("/") if parts.path.strip("/") else place


def _check(parts: SplitResult, place: str) -> None:
    """Check a link of a chained address, as zip://images::ftp://host/archive.zip has two.

    Raises:
        ConfigError: it holds credentials, or is of a web server.
    """
    if _USER.match(parts.netloc) and parts.scheme.lower() not in _AT_ACCOUNT:
        name = f"FSSPEC_{parts.scheme.upper()}_USERNAME"
        raise ConfigError(
            f"credentials have no place in an address: set them in the environment, as {name} for what fsspec calls "
            "username, or in fsspec's own settings"
        )
    if parts.scheme.lower() in _NO_STORES:
        raise ConfigError(f"{place} is of a web server, which has no folders: download the images to a folder")


def normalized(place: str, *, any_store: bool = True) -> str:
    """The text of a place in its one spelling: a path, s3://bucket/prefix, or a URL of `any_store`.

    Raises:
        ConfigError: it is no address, or one that may not be given.
        ValueError: it is a URL, of a store that is read for images alone.
    """
    place = without_file(place)
    if is_s3(place):
        return str(Address.of(place))
    if not is_url(place):
        return place
    if not any_store and scheme_of(place) not in WRITABLE:
        raise ValueError("folders, and s3:// addresses, are read and written here: give one, or mount the store")
    return store_url(place)


def real_root(place: str) -> str:
    """Resolve a place to one text for all folders and processes: as `normalized`, and paths absolute, without links."""
    place = normalized(place)
    return place if local_path(place) is None else os.path.realpath(place)


def local_path(place: str) -> Path | None:
    """The path of a place on this machine, to look at which asks no server; None for an address."""
    place = without_file(place)
    return None if is_s3(place) or is_url(place) else Path(place)
