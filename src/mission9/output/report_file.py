"""The file `report.html`: its author, its result and its integrity. `html_report` makes its content."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from mission9.storage.local.files import open_to_read, read_whole

_HEAD = 4096  # bytes within which the page identifies itself
_RUN = re.compile(rb'<meta name="mission9-run" content="([0-9a-f]*)">')
_SEAL = re.compile(rb"<!-- mission9: the SHA-256 of all before is ([0-9a-f]{64}) -->\n\Z")
_SEAL_BYTES = 128


def sealed(page: bytes) -> bytes:
    """The page with its own SHA-256 at the end."""
    digest = hashlib.sha256(page).hexdigest()
    return page + f"<!-- mission9: the SHA-256 of all before is {digest} -->\n".encode()


def run_of(file: Path) -> str | None:
    """The `run_id` of a page's result; None if the page is missing or does not name it."""
    if not file.is_file():
        return None
    with open_to_read(file) as page:
        found = _RUN.search(page.read(_HEAD))
    return found[1].decode() if found else None


def is_ours(file: Path) -> bool:
    """Return True if mission9 wrote a page, even if it is damaged: either of its two ends identifies it."""
    return file.is_file() and (run_of(file) is not None or _SEAL.search(_end(file)) is not None)


def page_problem(file: Path, run_id: str) -> str | None:
    """A fault of the page of a result, and the fix; None if there is no page, or no fault."""
    if not os.path.lexists(file):
        return None
    if not is_ours(file):
        return "was not written by mission9: move it away"
    page, again = read_whole(file), f"mission9 report {file.parent} rewrites it"
    seal = _SEAL.search(page, max(0, len(page) - _SEAL_BYTES))
    if seal is None or hashlib.sha256(page[: seal.start()]).hexdigest().encode() != seal[1]:
        return f"is damaged: {again}"
    return None if run_of(file) == run_id else f"belongs to another result: {again}"


def _end(file: Path) -> bytes:
    with open_to_read(file) as page:
        page.seek(max(0, file.stat().st_size - _SEAL_BYTES))
        return page.read()
