"""Log the operations on an output in a chain of JSON lines, each with the SHA-256 of the line before.

Changing, removing or inserting a line breaks the chain. Truncation does not, so the last line's SHA-256 is also stored
in `run.json`, in the receipts of erasure, and with the tombstones. The record of an erasure holds the SHA-256 of its
receipt.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any, Literal

from mission9._package import __version__
from mission9.output.layout import AUDIT_LOG, ERASED_FILE, RECEIPTS
from mission9.storage.file_store import FileStore

MODEL_SHA256 = "model_sha256"  # of a result's PCA model

_FIRST = "0" * 64  # the previous hash of the first record

Action = Literal["run", "erase", "retain", "erased"]


def append(state: FileStore, action: Action, facts: dict[str, Any]) -> dict[str, Any]:
    """Add a record; return the new end of the log."""
    lines = _lines(state)
    record = {
        "n": len(lines) + 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "action": action,
        "by": f"{_user()}@{socket.gethostname()}",
        "version": __version__,
        **facts,
        "previous": _head(lines),
    }
    line = json.dumps(record, ensure_ascii=False).encode()
    state.write(AUDIT_LOG, b"".join(each + b"\n" for each in [*lines, line]))
    return _end([*lines, line])


def ended(state: FileStore) -> dict[str, Any]:
    """The end of the log, as stored in `run.json`: the number of records, and the SHA-256 of the last line."""
    return _end(_lines(state))


def verify(state: FileStore, report: dict[str, Any]) -> Iterator[str]:
    """The problems of the log of an output whose `run.json` is `report`, a sentence each."""
    said = list(_noted(state, report))  # before the log is read: another process may be adding to both
    lines = _lines(state)
    if not lines:
        yield f"there is no record in {AUDIT_LOG}: no run has finished here, or it was deleted"
    yield from _problems_of_chain(lines)
    for where, noted in said:
        yield from _problems_of_end(lines, where, noted)
    for number, line in enumerate(lines, 1):
        yield from _problems_of_receipt(state, number, _record(line) or {})


def noted(state: FileStore, fact: str) -> set[str]:
    """The text values of a fact in all records."""
    values = ((_record(line) or {}).get(fact) for line in _lines(state))
    return {value for value in values if isinstance(value, str)}


def ends_with_erasure(state: FileStore) -> bool:
    """Return True if the last record is of an erasure, after which no run has finished."""
    return any((_record(line) or {}).get("action") == "erased" for line in _lines(state)[-1:])


def _problems_of_chain(lines: list[bytes]) -> Iterator[str]:
    previous = _FIRST
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record is None:
            yield f"record {number} of {AUDIT_LOG} is damaged"
        elif record.get("previous") != previous or record.get("n") != number:
            yield f"record {number} of {AUDIT_LOG} does not follow the one before: one was changed or removed"
        previous = _sha256(line)


def _problems_of_end(lines: list[bytes], where: str, noted: dict[str, Any]) -> Iterator[str]:
    count = noted.get("records")
    if not isinstance(count, int) or count < 0:
        yield f"{where} does not record the end of {AUDIT_LOG}"
    elif len(lines) < count:
        yield f"{AUDIT_LOG} has {len(lines)} records, but {where} records {count}: its end is missing"
    elif _head(lines[:count]) != noted.get("head"):
        yield f"record {count} of {AUDIT_LOG} differs from the one recorded in {where}"


def _problems_of_receipt(state: FileStore, number: int, record: dict[str, Any]) -> Iterator[str]:
    if record.get("action") != "erased":
        return
    name = str(record.get("receipt")).rpartition("/")[2]
    content = state.read(f"{RECEIPTS}/{name}")
    if content is None:
        yield f"{RECEIPTS}/{name}, named in record {number}, is missing"
    elif _sha256(content) != record.get("receipt_sha256"):
        yield f"{RECEIPTS}/{name} differs from the one in record {number}: it was changed"


def _noted(state: FileStore, report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The ends of the log recorded in other files, each with the name of its file."""
    if report:
        yield "run.json", _object(report.get("audit"))
    if tombstones := state.read(ERASED_FILE):
        yield ERASED_FILE, _object((_record(tombstones) or {}).get("audit"))
    for name in state.names(RECEIPTS):
        receipt = _record(state.read(f"{RECEIPTS}/{name}") or b"") or {}
        yield f"{RECEIPTS}/{name}", _object(receipt.get("audit"))


def _lines(state: FileStore) -> list[bytes]:
    return (state.read(AUDIT_LOG) or b"").splitlines()


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _end(lines: list[bytes]) -> dict[str, Any]:
    return {"records": len(lines), "head": _head(lines)}


def _head(lines: list[bytes]) -> str:
    """The SHA-256 of the last line; for an empty log, the previous hash of the first record."""
    return _sha256(lines[-1]) if lines else _FIRST


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
