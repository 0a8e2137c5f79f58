"""s3://bucket/key addresses, and paths below them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mission9.errors import ConfigError

_S3 = re.compile(r"s3a?://", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def is_s3(place: str | Path) -> bool:
    """Return True if a place is in a bucket: s3://, or s3a://, Hadoop's name for the same."""
    return isinstance(place, str) and _S3.match(place) is not None


def address_of(place: str | Path | None) -> Address | None:
    """The address of a place in a bucket; None for any other place.

    Raises:
        ConfigError: the address is not valid.
    """
    return Address.of(str(place)) if place is not None and is_s3(place) else None


@dataclass(frozen=True)
class Address:
    """An object, or everything below a prefix; `key` has no slash at its ends."""

    bucket: str
    key: str = ""

    @staticmethod
    def of(text: str) -> Address:
        """Parse an address.

        Raises:
            ConfigError: it names no bucket, or its key is not valid.
        """
        bucket, _, key = _S3.sub("", text, count=1).partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ConfigError(f"{text} names no bucket: pass s3://BUCKET/PREFIX, without credentials")
        parts = key.strip("/").split("/") if key.strip("/") else []
        if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
            raise ConfigError(f"{text} contains an empty name, . or .., or unprintable characters: pass another key")
        return Address(bucket, "/".join(parts))

    def __truediv__(self, below: str) -> Address:
        return Address(self.bucket, f"{self.key}/{below}" if self.key else below)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}".rstrip("/")

    @property
    def name(self) -> str:
        """The text after the last slash."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> Address:
        """The prefix that contains it."""
        return Address(self.bucket, self.key.rpartition("/")[0])

    def relative(self, key: str) -> str:
        """The key of an object below this address, relative to it."""
        return key[len(self.key) + 1 :] if self.key else key
