"""The report of a run: numbers that must add up."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mission9.errors import ConservationError, NoResultError, OutputError
from mission9.redact import one_line, redact_values
from mission9.schema import FEATURES, SPLITS

_PACKAGES = ("mission9", "numpy", "openvino", "pillow", "pillow-heif", "pyarrow", "pyspark", "torch")


# The name of `run.json` in errors, the same for a folder and a bucket.
_REPORT = "run.json"


class _Settings(BaseModel):
    """The settings of a run that are read back from its result."""

    model_config = ConfigDict(strict=True)

    input: str
    max_pixels: int
    components: int | float = 1
    pca_model: str | None = None
    encrypt_key: str | None = None
    no_report: bool = False
    plain_csv: bool = False
    preprocess: str = ""


class _Weights(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    sha256: str


class _Objects(BaseModel):
    """The free-form dictionaries in a report."""

    config: _Settings
    weights: _Weights


@dataclass
class SplitCounts:
    """Image counts of one split; `reasons` counts rejects by reason."""

    listed: int = 0
    featured: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """The content of `run.json`; `seconds` are wall-clock time by stage, `cpu_seconds` the workers' in extraction.

    `layout` names the folders used as splits. `pseudonyms` names the key of the pseudonyms in the tables, empty if they
    hold paths. `run_id` lets readers detect that another result has replaced the one that they began to read.
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
        """Add the seconds spent inside the context to those of a stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - start, 3)

    def check_conserved(self) -> None:
        """Check that every listed image is featured or rejected.

        Raises:
            ConservationError: the counts differ; the message lists them.
        """
        for name, split in self.splits.items():
            if split.listed != split.featured + split.rejected:
                raise ConservationError(
                    f"{name}: {split.listed} listed, but {split.featured} featured + {split.rejected} rejected; "
                    "please report it"
                )

    def audited(self) -> dict[str, Any]:
        """The facts recorded in the audit log; settings as a hash, since places contain names."""
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
        for texts in (facts["config"], facts["weights"]):  # paths may be URLs that contain secrets
            texts |= redact_values(texts)
        return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def report_of(found: Mapping[str, Any], place: str | Path) -> Report:
    """Parse the `run.json` of `place`, also one of an earlier version.

    Raises:
        OutputError: it is missing or damaged.
    """
    if not found:
        raise NoResultError(
            f"there is no result in {place} ({_file(place)} is missing or damaged): create it with mission9 run "
            f"--output {place}"
        )
    try:
        _Objects.model_validate(found)
        report = _READER.validate_python({"run_id": "", "versions": {}, **found})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _strange(place, one_line(f"{where}: {first['msg']}")) from error
    if unknown := report.splits.keys() - set(SPLITS):
        raise _strange(place, f"it names a split {min(unknown)!r}")
    if not 0 <= report.n_components <= FEATURES:
        raise _strange(place, f"n_components: {report.n_components}")
    return report


def _strange(place: str | Path, why: str) -> OutputError:
    return OutputError(
        f"{_file(place)} is damaged or not written by mission9 ({why}): recreate it with mission9 run --output {place}"
    )


def _file(place: str | Path) -> str:
    return f"{str(place).rstrip('/')}/{_REPORT}"


_READER = TypeAdapter(Report)


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """The versions of Python and of the installed packages among `packages`."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
