"""The folders in which prefixes are worked on, or read: in the user's cache, since all in them can be had again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import platformdirs

from mission9.errors import StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.environment import endpoint
from mission9.storage.s3.raw_keys import is_odd


def mirror_of(address: Address, what: str) -> Path:
    """The folder that a user has for a prefix of the server that the environment names; `what` it is for."""
    digest = hashlib.sha256(f"{endpoint()} {address}".encode()).hexdigest()[:16]
    folder = platformdirs.user_cache_path("mission9") / "s3" / digest
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / what


def file_of(key: str, address: Address, folder: Path) -> Path:
    """Return where an object below an address lies in a folder that mirrors it.

    Raises:
        StorageError: its key leads out of the folder, or no file can be called so.
    """
    name = address.relative(key)
    if not name or is_odd(name):
        raise StorageError(
            f"{address} holds {key!r}, a key with empty names, . or .., or what does not print, which is nothing that "
            "mission9 wrote: see who did, and delete it"
        )
    return folder / name
