"""Make texts from outside fit to be shown: one line, which no file's name can add to, and no secrets."""

from __future__ import annotations

import re
from typing import Any

_MASK = "***"

# All look at each letter a bounded number of times: a name is as long as whoever made it likes.

# https://user:password@host; one slash is left of two where a path was made of it. A password may hold a slash.
_USER = re.compile(
    r"""((?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+:/{1,2})(?:[^\s"'/]{1,300}|[^\s"'@/:]{0,100}+:[^\s"']{0,300})@""",
    re.IGNORECASE,
)

# ?X-Amz-Signature=..., ;token=..., and as Python and JSON write them: 'password': '...'; then as YAML and HTTP do, and
# command lines: password: ..., --password ...
_SETTING = re.compile(
    r"""(?<![\w.-])(?:(?P<exact>[\w.-]++)(?:=|["']\s?:\s?|\s=\s)|(?P<loose>--[\w.-]++[ ]|[\w.-]++:\s{1,4}))["']?"""
)
# Of parsers, whose tokens are words.
_PARSED = re.compile(r"(?:unused|unexpected|unrecognized) $", re.IGNORECASE)
_REST = re.compile(r"""[^\s"'&;,)}\]]+""")
_SCHEME = re.compile(r"(?:Bearer|Basic|Digest|Negotiate|AWS4-HMAC-SHA256) {1,4}", re.IGNORECASE)
_SCHEMED = re.compile(r"(?<![\w.-])((?:Bearer|Basic) )(?=[a-zA-Z._~+/-]{0,300}[0-9=])[\w.~+/=-]{8,}")
_NAMES = "secret|passw(?:or)?d|passphrase|pwd|token|signature|credential|access[_.-]?key|api[_.-]?key|authorization"
_SECRET = re.compile(f"{_NAMES}|^(?:sig|key|auth)$", re.IGNORECASE)
_LOOSE_SECRET = re.compile(_NAMES, re.IGNORECASE)

# `token: give one` is a sentence, and so is `--token is no option`: a word that others follow, none of them a setting.
_SENTENCE = re.compile(r"(?:[A-Z]?[a-z]{1,30}|\d{1,3})[,;)]? (?!-|[\w.-]{1,100}(?:[:=]| = ))\S")


def one_line(text: str) -> str:
    r"""The same text with what does not print (ends of lines, escape sequences) as `\n`, `\x1b` and the like."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def redact(text: str) -> str:
    """The same text with `***` for the secrets in URLs and settings."""
    return _without_values(_SCHEMED.sub(rf"\1{_MASK}", _USER.sub(rf"\1{_MASK}@", text)))


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
        if setting.start() < end or not _is_secret(text, setting):
            continue  # within a value that is masked, or no secret
        scheme = _SCHEME.match(text, setting.end())
        if value := _REST.match(text, scheme.end() if scheme else setting.end()):
            parts += [text[end : setting.end()], _MASK]
            end = value.end()
    return "".join([*parts, text[end:]])


def _is_secret(text: str, setting: re.Match[str]) -> bool:
    """Tell whether what a setting is set to is a secret, and not the rest of a sentence."""
    if setting["exact"]:
        return _SECRET.search(setting["exact"]) is not None
    if not _LOOSE_SECRET.search(setting["loose"]) or _PARSED.search(
        text, max(0, setting.start() - 20), setting.start()
    ):
        return False
    is_sentence = _SENTENCE.match(text, setting.end()) and not _SCHEME.match(text, setting.end())
    return not is_sentence
