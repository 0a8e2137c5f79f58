"""Note which images are erased, by keyed hashes of their paths: in the state of an output, nowhere in clear."""

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

ERASED = "(erased)"  # counted in the place of an extension


@dataclass
class Pending:
    """An erasure that is noted and not finished: `images` by their hashes, and what was counted of them so far.

    Of the images, `erased` had not been noted before. A killed erasure is in the receipt of whichever goes on with it.
    """

    images: set[str] = field(default_factory=set)
    erased: int = 0
    rows_of_shards: int = 0
    source: Counter[str] = field(default_factory=Counter)
    digest_before: str = ""

    @staticmethod
    def of(found: dict[str, Any]) -> Pending:
        """Return what `Tombstones.save` has noted."""
        counts = (int(found["erased"]), int(found["rows_of_shards"]), Counter(found["source"]))
        return Pending(set(found["images"]), *counts, str(found["digest_before"]))


@dataclass
class Tombstones:
    """Hashes of the paths of erased images, and of what public tables called them; those `pending` may not be gone.

    `retired` are the SHA-256 of PCA models that may have seen an erased image: no run is given one of them again.
    `audit` says where the audit log ended with the last erasure. The key is of this output alone. Whoever has it can
    find out whether a path that they guess was erased, as the next run must.
    """

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    hashes: set[str] = field(default_factory=set)
    pending: Pending = field(default_factory=Pending)
    audit: dict[str, Any] = field(default_factory=dict)
    retired: set[str] = field(default_factory=set)

    @staticmethod
    def of(state: FileStore) -> Tombstones:
        """Those of an output.

        Raises:
            OutputError: they are damaged; without them erased images would come back.
        """
        content = state.read(ERASED_FILE)
        if content is None:
            return Tombstones()
        try:
            found = json.loads(content)
            hashes, pending = set(found["hashes"]), Pending.of(found["pending"])
            retired = set(found.get("retired", ()))  # earlier versions noted none
            return Tombstones(bytes.fromhex(found["key"]), hashes, pending, dict(found["audit"]), retired)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(
                f"{ERASED_FILE} in the state of the output is damaged, and without it erased images would come back: "
                "restore it, or give another --output"
            ) from error

    def save(self, state: FileStore) -> None:
        """Note them in the state of an output."""
        pending = vars(self.pending) | {"images": sorted(self.pending.images)}
        found = {"key": self.key.hex(), "hashes": sorted(self.hashes), "pending": pending, "audit": self.audit}
        found["retired"] = sorted(self.retired)
        state.write(ERASED_FILE, json.dumps(found).encode())

    @property
    def is_pending(self) -> bool:
        """Tell whether an erasure was cut short."""
        return bool(self.pending.images)

    def hash_of(self, path: str) -> str:
        return hmac.digest(self.key, path.encode(), "sha256").hex()

    def hashes_of(self, paths: Iterable[str]) -> set[str]:
        return set(map(self.hash_of, paths))

    def has(self, path: str) -> bool:
        """Tell whether a path, or what public tables called it, is noted."""
        return self.hash_of(path) in self.hashes

    def holds(self, paths: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Of which paths the images are erased."""
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
                found.listed += type(found.listed)()  # without the splits of which nothing is left
                batch = batch.filter(pc.invert(erased))
            if len(batch):
                yield batch
