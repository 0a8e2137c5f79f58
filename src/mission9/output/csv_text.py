"""CSV texts that no spreadsheet evaluates, with any separator, and their reversal.

An apostrophe precedes each formula-like piece, at the beginning of a text and after each separator in it, and each
piece that begins with an apostrophe. Removing one apostrophe in each such position restores the text.
"""

from __future__ import annotations

import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

# Without commas: a reader that splits at them honours the quotes around a text.
_SEPARATORS = r";|\t\r\n"

_PIECE = re.compile(rf"(^|[{_SEPARATORS}])([^{_SEPARATORS}]*)")

# Few texts have a piece that begins with neither a letter nor a digit: only those are checked one by one.
_RARE = rf"(?:^|[{_SEPARATORS}])[^0-9A-Za-z{_SEPARATORS}]|^[\t\r\n]"
_GUARD = rf"(^|[{_SEPARATORS}])'"

_SIGNS = tuple("=+-@")
_INVISIBLE = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a symbol by category, but displayed as blanks


def guarded(texts: pa.Array) -> pa.Array:
    """The texts, with an apostrophe wherever a spreadsheet would evaluate a formula."""
    rare = pc.fill_null(pc.match_substring_regex(texts, _RARE), fill_value=False)
    if not rare.true_count:
        return texts
    mended = pa.array([guarded_text(text) for text in texts.filter(rare).to_pylist()], texts.type)
    return pc.replace_with_mask(texts, rare, mended)


def guarded_text(text: str) -> str:
    """The guarded form of one text."""
    begin = "'" if text[:1] in ("\t", "\r", "\n") else ""  # characters that some readers skip
    return begin + _PIECE.sub(lambda piece: f"{piece[1]}{_guard(piece[2])}{piece[2]}", text)


def unguarded(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The original texts of `guarded`."""
    return pc.replace_substring_regex(texts, pattern=_GUARD, replacement=r"\1")


def _guard(piece: str) -> str:
    return "'" if piece.startswith("'") or _first_seen(piece).startswith(_SIGNS) else ""


def _first_seen(piece: str) -> str:
    """The first visible character of a text, to people and spreadsheets: not blank, a quote or zero-width."""
    for character in piece:
        for seen in unicodedata.normalize("NFKC", character):
            if unicodedata.category(seen)[0] not in "ZCM" and seen not in _INVISIBLE + "\"'":
                return seen
    return ""
