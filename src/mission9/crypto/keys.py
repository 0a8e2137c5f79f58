"""Keys that users give: named by a file or an environment variable, never written or told."""

from __future__ import annotations

import os
from pathlib import Path

from mission9.errors import ConfigError
from mission9.storage.local.untrusted import MIB, read_file

_ENVIRONMENT = "env:"
_LEAST_BYTES = 16
_MAKE_ONE = "make one with: openssl rand -hex 32 > FILE"


def read_key(source: str, option: str) -> bytes:
    """The key that an option names: env:NAME, or a file; ends of lines at its end do not count.

    Raises:
        ConfigError: there is none, or it is too short to be one.
    """
    if source.startswith(_ENVIRONMENT):
        name = source.removeprefix(_ENVIRONMENT)
        key = os.environ.get(name, "").encode()
        if not key:
            raise ConfigError(f"{option}: the environment has no {name}, which is to hold the key; set it")
    else:
        try:
            key = read_file(Path(source), MIB).rstrip(b"\r\n")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{option}: the key in {source} cannot be read ({why}); {_MAKE_ONE}") from error
    if len(key) < _LEAST_BYTES:
        raise ConfigError(f"{option}: the key is shorter than {_LEAST_BYTES} bytes; {_MAKE_ONE}")
    return key
