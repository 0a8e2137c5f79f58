"""Local folders for the contents of prefixes, in the user's cache, since they can be downloaded again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import platformdirs

from mission9.errors import StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.environment import endpoint
from mission9.storage.s3.raw_keys import is_odd


def mirror_of(address: Address, what: str) -> Path:
    """A user's folder for a prefix on the configured server; `what` names its purpose."""
    digest = hashlib.sha256(f"{endpoint()} {address}".encode()).hexdigest()[:16]
    folder = platformdirs.user_cache_path("mission9") / "s3" / digest
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / what


def file_of(key: str, address: Address, folder: Path) -> Path:
    """The path of an object below an address, in a folder that mirrors it.

    Raises:
        StorageError: its key leads out of the folder, or is not a valid file name.
    """
    name = address.relative(key)
    if not name or is_odd(name):
        raise StorageError(
            f"{address} holds {key!r}, which mission9 never writes: its key contains an empty name, . or .., or "
            "unprintable characters. Delete it"
        )
    return folder / name
