"""Pseudonyms of image paths, which only a holder of the key can compute: HMAC-SHA256, truncated to 128 bits.

They replace paths in tables when these are published. The internal state (`_state`) keeps the paths, by which later
runs find and read the images.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mission9.crypto.keys import read_key
from mission9.errors import ConfigError

OPTION = "--pseudonymise"

_DIGITS = 32
_OF_THE_KEY = b"mission9: the name of this key"


@dataclass(frozen=True)
class Pseudonyms:
    """The pseudonyms of one key."""

    key: bytes

    @staticmethod
    def of(source: str | None) -> Pseudonyms | None:
        """The pseudonyms of the key that `--pseudonymise` names; None without a key.

        Raises:
            ConfigError: the key cannot be read.
        """
        return Pseudonyms(read_key(source, OPTION)) if source else None

    def name(self, path: str) -> str:
        """The pseudonym of a path."""
        return hmac.digest(self.key, path.encode(), "sha256").hex()[:_DIGITS]

    @property
    def key_id(self) -> str:
        """An identifier of the key that reveals nothing about it."""
        return hmac.digest(self.key, _OF_THE_KEY, "sha256").hex()[:16]

    def apply(self, rows: pa.Table) -> pa.Table:
        """The rows with pseudonyms for `path`, sorted by these: the order of the paths would reveal them.

        A path in `message` is replaced too.
        """
        paths = rows["path"].to_pylist()
        names = [self.name(path) for path in paths]
        columns = {"path": pa.array(names, pa.string())}
        if "message" in rows.column_names:
            told = zip(rows["message"].to_pylist(), paths, names, strict=True)
            messages = [text and text.replace(path, name) for text, path, name in told]
            columns["message"] = pa.array(messages, pa.string())
        for column, values in columns.items():
            rows = rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), values)
        return rows.sort_by("path")


@dataclass(frozen=True)
class TableNames:
    """The form of paths in the tables: paths, pseudonyms, or pseudonyms without their key."""

    is_public: bool
    pseudonyms: Pseudonyms | None

    def of(self, rows: pa.Table) -> pa.Table:
        """Convert rows of paths to the form in the tables."""
        return self.pseudonyms.apply(rows) if self.pseudonyms else rows

    def differ(self, listed: pa.Table, found: pa.Table) -> bool:
        """Return True if rows of the tables are other images than those listed, as far as this is known."""
        if not (self.is_public or self.pseudonyms):
            return len(listed) != len(found)
        return sorted(self.of(listed.select(["path"]))["path"].to_pylist()) != sorted(found["path"].to_pylist())

    def known(self, rows: pa.Table) -> list[Any]:
        """The comparable part of rejects."""
        if self.is_public or self.pseudonyms:
            return list(rows.to_pylist())
        return sorted(rows["reason"].to_pylist())


def check_key(pseudonyms: Pseudonyms | None, key_id: str, place: str) -> None:
    """Refuse to continue a result with pseudonyms without their key.

    Raises:
        ConfigError: there is no key, or it is another one.
    """
    if key_id and pseudonyms is None:
        raise ConfigError(f"the result in {place} has pseudonyms: pass their key with {OPTION}, or another --output")
    if pseudonyms is not None and key_id != pseudonyms.key_id:
        raise ConfigError(f"the result in {place} was made with another key: pass that key with {OPTION}")
