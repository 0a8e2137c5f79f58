"""Record erased images by keyed hashes of their paths, in the state of an output; no path is stored in clear."""

from __future__ import annotations

import hmac
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mission9.errors import OutputError
from mission9.output.layout import ERASED_FILE
from mission9.sources.listing import ListingCounts
from mission9.storage.file_store import FileStore

ERASED = "(erased)"  # counted in place of an extension


@dataclass
class Pending:
    """A recorded, unfinished erasure: `images` by their hashes, with their counts so far.

    `erased` counts the images not recorded before. A killed erasure is included in the receipt of the one that resumes
    it.
    """

    images: set[str] = field(default_factory=set)
    erased: int = 0
    rows_of_shards: int = 0
    source: Counter[str] = field(default_factory=Counter)
    digest_before: str = ""

    @staticmethod
    def of(found: dict[str, Any]) -> Pending:
        """Parse the record written by `Tombstones.save`."""
        counts = (int(found["erased"]), int(found["rows_of_shards"]), Counter(found["source"]))
        return Pending(set(found["images"]), *counts, str(found["digest_before"]))


@dataclass
class Tombstones:
    """Hashes of the paths of erased images, and of their public names; those `pending` may not be erased yet.

    `retired` are the SHA-256 of PCA models fitted on an erased image: no later run uses them.
    `audit` records the end of the audit log after the last erasure. The key belongs to this output alone. A person who
    has it can test whether a guessed path was erased, as the next run must.
    """

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    hashes: set[str] = field(default_factory=set)
    pending: Pending = field(default_factory=Pending)
    audit: dict[str, Any] = field(default_factory=dict)
    retired: set[str] = field(default_factory=set)

    @staticmethod
    def of(state: FileStore) -> Tombstones:
        """Read the tombstones of an output.

        Raises:
            OutputError: they are damaged; without them erased images would return.
        """
        content = state.read(ERASED_FILE)
        if content is None:
            return Tombstones()
        try:
            found = json.loads(content)
            hashes, pending = set(found["hashes"]), Pending.of(found["pending"])
            retired = set(found.get("retired", ()))  # absent in earlier versions
            return Tombstones(bytes.fromhex(found["key"]), hashes, pending, dict(found["audit"]), retired)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(
                f"{ERASED_FILE} in the output's state is damaged, and without it erased images would return: "
                "restore it, or pass another --output"
            ) from error

    def save(self, state: FileStore) -> None:
        """Write the tombstones to the state of an output."""
        pending = vars(self.pending) | {"images": sorted(self.pending.images)}
        found = {"key": self.key.hex(), "hashes": sorted(self.hashes), "pending": pending, "audit": self.audit}
        found["retired"] = sorted(self.retired)
        state.write(ERASED_FILE, json.dumps(found).encode())

    @property
    def is_pending(self) -> bool:
        """Return True if an erasure was interrupted."""
        return bool(self.pending.images)

    def hash_of(self, path: str) -> str:
        return hmac.digest(self.key, path.encode(), "sha256").hex()

    def hashes_of(self, paths: Iterable[str]) -> set[str]:
        return set(map(self.hash_of, paths))

    def has(self, path: str) -> bool:
        """Return True if a path, or its public name, is recorded."""
        return self.hash_of(path) in self.hashes

    def holds(self, paths: pa.Array | pa.ChunkedArray) -> pa.Array:
        """A Boolean array, True for the paths of erased images."""
        if not self.hashes:
            return pa.array([False] * len(paths), pa.bool_())
        return pa.array([path is not None and self.has(path) for path in paths.to_pylist()], pa.bool_())

    def exclude(self, rows: Iterable[pa.RecordBatch], found: ListingCounts) -> Iterator[pa.RecordBatch]:
        """The rows of a listing without the erased images, which `found` counts as skipped."""
        for batch in rows:
            erased = self.holds(batch["path"])
            if erased.true_count:
                for split in batch.filter(erased)["split"].to_pylist():
                    found.listed[split] -= 1
                    found.skipped[ERASED] += 1
                found.listed += type(found.listed)()  # drops the splits left empty
                batch = batch.filter(pc.invert(erased))
            if len(batch):
                yield batch
