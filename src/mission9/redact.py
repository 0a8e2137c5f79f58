"""What may be shown of texts from outside: one line, which no file's name can add to, and no secrets."""

from __future__ import annotations

import re
from typing import Any

_MASK = "***"

# https://user:password@host; one slash is left of two where a path was made of it. A password may hold a slash.
_USER = re.compile(r"""(\b[a-z][a-z0-9+.-]*:/{1,2})(?:[^\s"'/]+|[^\s"'@/]*:[^\s"']*)@""", re.IGNORECASE)

_NAMES = r"secret|passw(?:or)?d|passphrase|pwd|token|signature|credentials?|access[_.-]?key|api[_.-]?key|authorization"
# ?X-Amz-Signature=..., ;token=..., and as Python and JSON write them: 'password': '...'.
_VALUE = re.compile(
    rf"""((?:\b|_)(?:[\w.-]*(?:{_NAMES})[\w.-]*|sig|key|auth)(?:=|["']\s*:\s*|\s=\s)["']?)[^\s"'&;,)}}\]]+""",
    re.IGNORECASE,
)


def one_line(text: str) -> str:
    r"""The same text with what does not print (ends of lines, escape sequences) as `\n`, `\x1b` and the like."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def redact(text: str) -> str:
    """The same text with `***` for the secrets in URLs and settings."""
    return _VALUE.sub(rf"\1{_MASK}", _USER.sub(rf"\1{_MASK}@", text))


def shown(text: str) -> str:
    """A text as it may be told: redacted, on one line."""
    return one_line(redact(text))


def redact_values(values: dict[str, Any]) -> dict[str, Any]:
    """The same settings, their texts redacted."""
    return {name: redact(value) if isinstance(value, str) else value for name, value in values.items()}
