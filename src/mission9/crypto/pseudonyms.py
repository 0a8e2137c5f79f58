"""Paths of images -> pseudonyms, which only whoever has the key can make of a path: HMAC-SHA256, cut to 128 bits.

They are put into tables when these are published. What a run goes on from (`_state`) holds the paths themselves, since
images are known and read by them.
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
        """Those of the key that `--pseudonymise` names; None where it names none.

        Raises:
            ConfigError: the key cannot be had.
        """
        return Pseudonyms(read_key(source, OPTION)) if source else None

    def name(self, path: str) -> str:
        """The pseudonym of a path."""
        return hmac.digest(self.key, path.encode(), "sha256").hex()[:_DIGITS]

    @property
    def key_id(self) -> str:
        """Return what tells this key from others, and nothing of it."""
        return hmac.digest(self.key, _OF_THE_KEY, "sha256").hex()[:16]

    def apply(self, rows: pa.Table) -> pa.Table:
        """The same rows with pseudonyms for `path`, in the order of these: that of the paths would tell of them.

        A `message` that names the path names the pseudonym.
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
    """Paths as the tables have them: themselves, pseudonyms, or what cannot be known without the key."""

    is_public: bool
    pseudonyms: Pseudonyms | None

    def of(self, rows: pa.Table) -> pa.Table:
        """Rows of paths as the tables have them."""
        return self.pseudonyms.apply(rows) if self.pseudonyms else rows

    def differ(self, listed: pa.Table, found: pa.Table) -> bool:
        """Tell whether rows of the tables are other images than those listed, as far as that can be known."""
        if not (self.is_public or self.pseudonyms):
            return len(listed) != len(found)
        return sorted(self.of(listed.select(["path"]))["path"].to_pylist()) != sorted(found["path"].to_pylist())

    def known(self, rows: pa.Table) -> list[Any]:
        """Return what can be compared of rejects."""
        if self.is_public or self.pseudonyms:
            return list(rows.to_pylist())
        return sorted(rows["reason"].to_pylist())


def check_key(pseudonyms: Pseudonyms | None, key_id: str, place: str) -> None:
    """Refuse to go on with a result of pseudonyms without their key.

    Raises:
        ConfigError: there is none, or it is another.
    """
    if key_id and pseudonyms is None:
        raise ConfigError(f"the result in {place} holds pseudonyms: give their key with {OPTION}, or another --output")
    if pseudonyms is not None and key_id != pseudonyms.key_id:
        raise ConfigError(f"the result in {place} was not made with this key: give that one with {OPTION}")
