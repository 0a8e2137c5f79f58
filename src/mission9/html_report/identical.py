"""Identical files under several labels, which confuse, or in several splits, which leak."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from mission9.html_report.sample import Sample, sha256_prefixes
from mission9.results.reader import Results


@dataclass(frozen=True)
class Group:
    """Identical files: (path, split, label) each, sorted by path."""

    files: tuple[tuple[str, str, str], ...]

    @property
    def leaks(self) -> bool:
        """True if its files are in several splits, so that test images are in the training set."""
        return len({split for _, split, _ in self.files}) > 1

    @property
    def crosses_labels(self) -> bool:
        """True if its files have several labels."""
        return len({label for _, _, label in self.files}) > 1


def identical_images(results: Results, sample: Sample) -> list[Group]:
    """All groups of two or more files: leaks first, then those across labels, then the rest."""
    found, times = np.unique(sample.prefixes, return_counts=True)
    repeated = found[times > 1]
    files: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for batch in results.images(("path", "split", "label", "sha256")) if len(repeated) else ():
        for row in batch.filter(np.isin(sha256_prefixes(batch["sha256"]), repeated)).to_pylist():
            files[row["sha256"]].append((row["path"], row["split"], row["label"]))
    groups = [Group(tuple(same)) for same in files.values() if len(same) > 1]
    return sorted(groups, key=lambda group: (not group.leaks, not group.crosses_labels, group.files))
