"""What a run did, in numbers that must add up."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mission9.errors import ConservationError
from mission9.privacy.redact import redact_values

_PACKAGES = ("mission9", "numpy", "openvino", "pillow", "pyarrow", "pyspark", "torch")


@dataclass
class SplitCounts:
    """Images of one split; `reasons` counts the rejected by reason."""

    listed: int = 0
    featured: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """Everything `run.json` holds; `seconds` are of the clock, by stage, `cpu_seconds` the workers' in extraction.

    `layout` says which folders were taken for splits. `pseudonyms` names the key of the pseudonyms in the tables, empty
    where these hold paths.
    By `run_id` readers see that no other result has taken the place of the one that they began to read.
    """

    config: dict[str, Any]
    fingerprint: str
    weights: dict[str, str]
    engine: dict[str, Any]
    policy: dict[str, Any] = field(default_factory=dict)
    pseudonyms: str = ""
    encrypted: bool = False
    audit: dict[str, Any] = field(default_factory=dict)
    found: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    layout: str = ""
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    images_inferred: int = 0
    shards: int = 0
    fitted_on: str = ""
    n_components: int = 0
    explained_variance_ratio: list[float] = field(default_factory=list)
    fidelity: dict[str, float] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions())
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def listed(self) -> int:
        return sum(split.listed for split in self.splits.values())

    @property
    def featured(self) -> int:
        return sum(split.featured for split in self.splits.values())

    @property
    def rejected(self) -> int:
        return sum(split.rejected for split in self.splits.values())

    @property
    def reasons(self) -> Counter[str]:
        return sum((Counter(split.reasons) for split in self.splits.values()), Counter())

    @property
    def variance_kept(self) -> float:
        return sum(self.explained_variance_ratio)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to those of a stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - start, 3)

    def check_conserved(self) -> None:
        """Every image listed is featured or rejected.

        Raises:
            ConservationError: with the numbers.
        """
        for name, split in self.splits.items():
            if split.listed != split.featured + split.rejected:
                raise ConservationError(
                    f"{name}: {split.listed} listed, but {split.featured} featured + {split.rejected} rejected; "
                    "please report it"
                )

    def audited(self) -> dict[str, Any]:
        """What the audit log says of it; settings by their hash, since places have names."""
        settings = json.dumps(self.config, sort_keys=True).encode()
        counts = {"listed": self.listed, "featured": self.featured, "rejected": self.rejected}
        return {
            "run_id": self.run_id,
            "fingerprint": self.fingerprint,
            "settings_sha256": hashlib.sha256(settings).hexdigest(),
            "policy": self.policy.get("name", ""),
            **counts,
            "skipped": sum(self.skipped.values()),
        }

    def to_json(self) -> bytes:
        facts = asdict(self)
        for texts in (facts["config"], facts["weights"]):  # paths may be URLs, which may hold secrets
            texts |= redact_values(texts)
        return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Python's version, and those of packages, by default those that results may depend on, of what is installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
