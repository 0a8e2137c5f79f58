"""What may be shown of texts from outside: one line, which no file's name can add to, and no secrets."""

from __future__ import annotations

import re
from typing import Any

_MASK = "***"

# Both look at each letter a bounded number of times: a name is as long as whoever made it likes.

# https://user:password@host; one slash is left of two where a path was made of it. A password may hold a slash.
_USER = re.compile(
    r"""((?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+:/{1,2})(?:[^\s"'/]{1,300}|[^\s"'@/:]{0,100}+:[^\s"']{0,300})@""",
    re.IGNORECASE,
)

# ?X-Amz-Signature=..., ;token=..., and as Python and JSON write them: 'password': '...'.
_SETTING = re.compile(r"""(?<![\w.-])([\w.-]++)(?:=|["']\s?:\s?|\s=\s)["']?""")
_REST = re.compile(r"""[^\s"'&;,)}\]]+""")
_SECRET = re.compile(
    "secret|passw(?:or)?d|passphrase|pwd|token|signature|credential|access[_.-]?key|api[_.-]?key|authorization"
    "|^(?:sig|key|auth)$",
    re.IGNORECASE,
)


def one_line(text: str) -> str:
    r"""The same text with what does not print (ends of lines, escape sequences) as `\n`, `\x1b` and the like."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def redact(text: str) -> str:
    """The same text with `***` for the secrets in URLs and settings."""
    return _without_values(_USER.sub(rf"\1{_MASK}@", text))


def shown(text: str) -> str:
    """A text as it may be told: redacted, on one line."""
    return one_line(redact(text))


def redact_values(values: dict[str, Any]) -> dict[str, Any]:
    """The same settings, their texts redacted."""
    return {name: redact(value) if isinstance(value, str) else value for name, value in values.items()}


def _without_values(text: str) -> str:
    """The same text without the values of secret settings; what another is set to may be a URL with more of them."""
    parts, end = [], 0
    for setting in _SETTING.finditer(text):
        if setting.start() < end or not _SECRET.search(setting[1]):
            continue  # within a value that is masked, or no secret
        if value := _REST.match(text, setting.end()):
            parts += [text[end : setting.end()], _MASK]
            end = value.end()
    return "".join([*parts, text[end:]])
