"""User-supplied keys, named by a file or an environment variable; they are never written or logged."""

from __future__ import annotations

import os
from pathlib import Path

from mission9.errors import ConfigError
from mission9.storage.local.untrusted import MIB, read_file

_ENVIRONMENT = "env:"
_LEAST_BYTES = 16
_MAKE_ONE = "make one with: openssl rand -hex 32 > FILE"


def read_key(source: str, option: str) -> bytes:
    """Read the key that an option names, env:NAME or a file, without trailing line breaks.

    Raises:
        ConfigError: the key is missing or too short.
    """
    if source.startswith(_ENVIRONMENT):
        name = source.removeprefix(_ENVIRONMENT)
        key = os.environ.get(name, "").encode()
        if not key:
            raise ConfigError(f"{option}: the environment variable {name} is not set: put the key into it")
    else:
        try:
            key = read_file(Path(source), MIB).rstrip(b"\r\n")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{option}: cannot read the key in {source} ({why}); {_MAKE_ONE}") from error
    if len(key) < _LEAST_BYTES:
        raise ConfigError(f"{option}: the key is shorter than {_LEAST_BYTES} bytes; {_MAKE_ONE}")
    return key
