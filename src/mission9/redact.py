"""Make external texts safe to show: on one line, whatever a file name contains, and without secrets."""

from __future__ import annotations

import re
from typing import Any

_MASK = "***"

# Every pattern examines each letter a bounded number of times, since untrusted names have any length.

# https://user:password@host; a conversion to a path leaves one slash of the two. A password may contain a slash.
_USER = re.compile(
    r"""((?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+:/{1,2})(?:[^\s"'/]{1,300}|[^\s"'@/:]{0,100}+:[^\s"']{0,300})@""",
    re.IGNORECASE,
)

# Settings in URLs (?X-Amz-Signature=..., ;token=...), in Python and JSON ('password': '...'), in YAML and HTTP
# (password: ...), and on command lines (--password ...).
_SETTING = re.compile(
    r"""(?<![\w.-])(?:(?P<exact>[\w.-]++)(?:=|["']\s?:\s?|\s=\s)|(?P<loose>--[\w.-]++[ ]|[\w.-]++:\s{1,4}))["']?"""
)
# Messages of parsers, in which a token is a word.
_PARSED = re.compile(r"(?:unused|unexpected|unrecognized) $", re.IGNORECASE)
_REST = re.compile(r"""[^\s"'&;,)}\]]+""")
_SCHEME = re.compile(r"(?:Bearer|Basic|Digest|Negotiate|AWS4-HMAC-SHA256) {1,4}", re.IGNORECASE)
_SCHEMED = re.compile(r"(?<![\w.-])((?:Bearer|Basic) )(?=[a-zA-Z._~+/-]{0,300}[0-9=])[\w.~+/=-]{8,}")
_NAMES = "secret|passw(?:or)?d|passphrase|pwd|token|signature|credential|access[_.-]?key|api[_.-]?key|authorization"
_SECRET = re.compile(f"{_NAMES}|^(?:sig|key|auth)$", re.IGNORECASE)
_LOOSE_SECRET = re.compile(_NAMES, re.IGNORECASE)

# `token: give one` and `--token is no option` are sentences: more words follow the first, and none is a setting.
_SENTENCE = re.compile(r"(?:[A-Z]?[a-z]{1,30}|\d{1,3})[,;)]? (?!-|[\w.-]{1,100}(?:[:=]| = ))\S")


def one_line(text: str) -> str:
    r"""The same text with unprintable characters (line ends, escape sequences) as `\n`, `\x1b` and the like."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def redact(text: str) -> str:
    """The same text with `***` for the secrets in URLs and settings."""
    return _without_values(_SCHEMED.sub(rf"\1{_MASK}", _USER.sub(rf"\1{_MASK}@", text)))


def shown(text: str) -> str:
    """A text that is safe to show: redacted, on one line."""
    return one_line(redact(text))


def redact_values(values: dict[str, Any]) -> dict[str, Any]:
    """The same settings, with redacted texts."""
    return {name: redact(value) if isinstance(value, str) else value for name, value in values.items()}


def _without_values(text: str) -> str:
    """The same text without the values of secret settings; other values may be URLs that contain more of them."""
    parts, end = [], 0
    for setting in _SETTING.finditer(text):
        if setting.start() < end or not _is_secret(text, setting):
            continue  # inside a masked value, or not a secret
        scheme = _SCHEME.match(text, setting.end())
        if value := _REST.match(text, scheme.end() if scheme else setting.end()):
            parts += [text[end : setting.end()], _MASK]
            end = value.end()
    return "".join([*parts, text[end:]])


def _is_secret(text: str, setting: re.Match[str]) -> bool:
    """True if the value of a setting is a secret, not the rest of a sentence."""
    if setting["exact"]:
        return _SECRET.search(setting["exact"]) is not None
    if not _LOOSE_SECRET.search(setting["loose"]) or _PARSED.search(
        text, max(0, setting.start() - 20), setting.start()
    ):
        return False
    is_sentence = _SENTENCE.match(text, setting.end()) and not _SCHEME.match(text, setting.end())
    return not is_sentence
