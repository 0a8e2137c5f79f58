"""Parquet files encrypted as a whole, columns and footers: Parquet's modular encryption, with a user's key.

Each file has its own data keys, which the user's key wraps (AES, RFC 3394). Worker processes receive the location of
the key, not the key itself, which is never written.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mission9.crypto.keys import read_key
from mission9.errors import ConfigError, SetupError
from mission9.storage.local.files import files_below, open_to_read

if TYPE_CHECKING:
    pass

OPTION, VARIABLE = "--encrypt-key", "MISSION9_ENCRYPT_KEY"

_MAGIC = b"PARE"  # the first bytes of a file with an encrypted footer
_KEY_NAME = "mission9"
_KEY_BYTES = 32
_PURPOSE = b"mission9: wraps the data keys of Parquet files"

_source: str | None = None  # of the key for the files that this process writes


@contextmanager
def encrypted_by(source: str | None) -> Iterator[None]:
    """Encrypt the tables that this process writes within the context, with a key from env:NAME or a file."""
    global _source
    if source:
        read_key(source, OPTION)  # fail now rather than at the first file
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before


def for_writing() -> dict[str, Any]:
    """The options of a Parquet writer."""
    if _source is None:
        return {}
    from pyarrow.parquet.encryption import EncryptionConfiguration

    factory, connection = _factory(read_key(_source, OPTION))
    how = EncryptionConfiguration(_KEY_NAME, uniform_encryption=True, data_key_length_bits=8 * _KEY_BYTES)
    return {"encryption_properties": factory.file_encryption_properties(connection, how)}


def for_reading(head: bytes, path: Path) -> dict[str, Any]:
    """The options of a Parquet reader for a file that begins with `head`.

    Raises:
        ConfigError: it is encrypted, and no key is configured.
    """
    if not head.startswith(_MAGIC):
        return {}
    from pyarrow.parquet.encryption import DecryptionConfiguration

    factory, connection = _factory(read_key(key_of(path), OPTION))
    return {"decryption_properties": factory.file_decryption_properties(connection, DecryptionConfiguration())}


def key_of(encrypted: Path) -> str:
    """The source of the key of an encrypted file or folder: env:NAME or a file.

    Raises:
        ConfigError: no key is configured.
    """
    source = _source or os.environ.get(VARIABLE)
    if not source:
        raise ConfigError(f"{encrypted} is encrypted: set {VARIABLE} to env:NAME or to a file with its key")
    return source


def is_encrypted(state: Path) -> bool | None:
    """Return True if the tables of an output's state are encrypted; None if there are none."""
    for file in files_below(state) if state.exists() else ():
        if file.suffix == ".parquet":
            with open_to_read(file) as table:
                return table.read(len(_MAGIC)) == _MAGIC
    return None


def check_encryption(state: Path, source: str | None, place: str) -> None:
    """Refuse to mix encrypted tables with others.

    Raises:
        ConfigError: the output's tables differ from this run's setting.
    """
    found = is_encrypted(state)
    if found is not None and found != bool(source):
        what = "is encrypted: pass its key with" if found else "is not encrypted: pass another --output with"
        raise ConfigError(f"the data in {place} {what} {OPTION}")


@lru_cache(maxsize=4)
def _factory(key: bytes) -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
        from pyarrow.parquet.encryption import CryptoFactory, KmsClient, KmsConnectionConfig
    except ImportError as error:
        raise SetupError(
            "cryptography, which encrypted tables need, is not installed: pip install 'mission9[encryption]'"
        ) from error
    wrapping = HKDF(SHA256(), _KEY_BYTES, salt=None, info=_PURPOSE).derive(key)

    class Keys(KmsClient):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:  # noqa: ARG002 - as pyarrow calls it
            super().__init__()

        def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:  # noqa: ARG002
            return base64.b64encode(aes_key_wrap(wrapping, key_bytes)).decode()

        def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:  # noqa: ARG002
            try:
                return aes_key_unwrap(wrapping, base64.b64decode(wrapped_key))
            except (InvalidUnwrap, ValueError) as error:
                raise ConfigError(f"the tables were encrypted with another key: pass it with {OPTION}") from error

    return CryptoFactory(Keys), KmsConnectionConfig()
