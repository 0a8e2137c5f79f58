"""Figures put into a page of the docs, between two marks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def put_section(page: Path, name: str, lines: Iterable[str]) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: the page has no such marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    text = page.read_text(encoding="utf-8")
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"{page} has no {begin.strip()} ... {end}")
    page.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")
