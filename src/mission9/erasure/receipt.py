"""Record an erasure without names: a receipt file, and an audit record that holds the SHA-256 of that file."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mission9.output.audit_log import append, ended
from mission9.output.layout import RECEIPTS, STATE
from mission9.storage.file_store import FileStore

Why = Literal["erase", "retain"]


@dataclass
class Receipt:
    """A record of an erasure without names in clear: images by keyed hashes, files by one hash of them all.

    It includes the images of interrupted erasures; `searched_by_hash_alone` are those of them not named in this
    request. `audit` is the end of the log before; the next record there is this receipt's.
    """

    action: Why
    images: list[str]
    erased: int
    rows_of_shards: int
    result: dict[str, Any]
    source: dict[str, Any]
    old_versions: int
    unfinished_uploads: int
    searched_files: int
    searched_by_hash_alone: int
    run_id: str
    digest_before: str
    digest_after: str
    not_reached: list[str]
    with_source: bool
    time: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    audit: dict[str, Any] = field(default_factory=dict)
    file: str = ""


def keep(receipt: Receipt, state: FileStore) -> dict[str, Any]:
    """Write a receipt, then its audit record; return the new end of the log.

    If killed between the two, the receipt exists without a record; the reverse never happens.
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.json"
    receipt.file, receipt.audit = f"{STATE}/{RECEIPTS}/{name}", ended(state)
    content = json.dumps(asdict(receipt), indent=2).encode()
    state.write(f"{RECEIPTS}/{name}", content)
    facts = {
        "images": len(receipt.images),
        "with_source": receipt.with_source,
        "why": receipt.action,
        "run_id": receipt.run_id,
        "receipt": name,
        "receipt_sha256": hashlib.sha256(content).hexdigest(),
    }
    return append(state, "erased", facts)
