"""Texts of a CSV that no spreadsheet computes, whatever it takes for a separator; and the same texts back.

An apostrophe goes before what begins like a formula, at the beginning of a text and after each separator in it, and
before what begins with an apostrophe already. So the text comes back by taking one apostrophe away in each such place.
"""

from __future__ import annotations

import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

# Commas are none: a reader that takes them for separators sees the quotes around a text.
_SEPARATORS = r";|\t\r\n"

_PIECE = re.compile(rf"(^|[{_SEPARATORS}])([^{_SEPARATORS}]*)")

# Few texts have a piece that begins with neither a letter nor a digit: only those are looked at one by one.
_RARE = rf"(?:^|[{_SEPARATORS}])[^0-9A-Za-z{_SEPARATORS}]|^[\t\r\n]"
_GUARD = rf"(^|[{_SEPARATORS}])'"

_SIGNS = tuple("=+-@")
_INVISIBLE = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a symbol by their category, and seen as spaces


def guarded(texts: pa.Array) -> pa.Array:
    """The same texts, with an apostrophe wherever a spreadsheet would begin to compute."""
    rare = pc.fill_null(pc.match_substring_regex(texts, _RARE), fill_value=False)
    if not rare.true_count:
        return texts
    mended = pa.array([guarded_text(text) for text in texts.filter(rare).to_pylist()], texts.type)
    return pc.replace_with_mask(texts, rare, mended)


def guarded_text(text: str) -> str:
    """`guarded` of one text."""
    begin = "'" if text[:1] in ("\t", "\r", "\n") else ""  # which some readers pass over
    return begin + _PIECE.sub(lambda piece: f"{piece[1]}{_guard(piece[2])}{piece[2]}", text)


def unguarded(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The texts that `guarded` was given."""
    return pc.replace_substring_regex(texts, pattern=_GUARD, replacement=r"\1")


def _guard(piece: str) -> str:
    return "'" if piece.startswith("'") or _first_seen(piece).startswith(_SIGNS) else ""


def _first_seen(piece: str) -> str:
    """The first character of a text as people and spreadsheets see it: none that is blank, quotes or has no width."""
    for character in piece:
        for seen in unicodedata.normalize("NFKC", character):
            if unicodedata.category(seen)[0] not in "ZCM" and seen not in _INVISIBLE + "\"'":
                return seen
    return ""
