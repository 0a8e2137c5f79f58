"""Labels, paths and messages in a safe form for display: on one line, with nothing hidden, of bounded length."""

from __future__ import annotations

import re

from mission9.redact import redact

LONGEST = 200

# Control characters, and those that are invisible, break a line, or change the direction of text.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def shown(text: object) -> str:
    r"""The text with invisible characters written as \x1b or \u202e, and the middle of a long one omitted."""
    seen = _UNSEEN.sub(lambda m: m[0].encode("unicode_escape").decode(), str(text))
    if len(seen) <= LONGEST:
        return seen
    half = LONGEST // 2
    return f"{seen[:half]} … {seen[-half:]}"


def setting(value: object) -> str:
    """A setting as text, without the secrets that a URL may hold."""
    return shown(redact(str(value)))
