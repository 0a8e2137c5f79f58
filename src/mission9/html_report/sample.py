"""A finished result -> the images that the report compares and shows: all, or an even sample sorted by path."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mission9.errors import OutputError
from mission9.results.reader import Results, Scores
from mission9.sampling import evenly
from mission9.schema import vectors

MAX_KNOWN = 50_000  # images of a split used as neighbours
MAX_SHOWN = 4_000  # of all splits: an SVG with more points is slow, and the file large

_COLUMNS = ("path", "split", "label", "width", "height", "bytes", "sha256")

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Images sorted by path, with their (n, k) scores; `shown` are the indices of those on the map.

    `counts` cover all images, by label and split; `prefixes` are 64 bits of each image's SHA-256.
    """

    images: pa.Table
    pca: NDArray[np.float32]
    shown: Places
    counts: Counter[tuple[str, str]]
    prefixes: NDArray[np.uint64]

    def column(self, name: str) -> NDArray[np.object_]:
        """One column for all images of the sample."""
        return np.asarray(self.images[name].to_numpy())

    def scores(self, split: str) -> Scores:
        """The scores of a split, in the form of `Results.scores`."""
        rows = np.flatnonzero(self.column("split") == split)
        return Scores(self.column("path"), self.column("label"), self.pca).take(rows)


def draw_sample(results: Results) -> Sample:
    """The sample of a result. Its size is bounded, except for 8 bytes of each image's SHA-256.

    Raises:
        OutputError: a table is missing or damaged.
    """
    counts = {split: results.report.splits[split].featured for split in results.splits}
    wanted = {split: evenly(count, MAX_KNOWN) for split, count in counts.items()}
    seen: Counter[tuple[str, str]] = Counter()
    passed: Counter[str] = Counter()
    parts, prefixes = [], []
    for batch in results.images(_COLUMNS):
        splits = batch["split"].to_numpy(zero_copy_only=False)
        rows = [_rows(splits == split, passed[split], places) for split, places in wanted.items()]
        parts.append(batch.take(pa.array(np.sort(np.concatenate(rows)))))
        prefixes.append(sha256_prefixes(batch["sha256"]))
        passed.update(splits)
        seen.update(zip(batch["label"].to_pylist(), splits, strict=True))
    if passed != counts:
        raise OutputError(f"the features in {results.root} differ from its report: run mission9 verify for details")
    images = pa.Table.from_batches(parts)
    return Sample(images, _scores(results, images), _shown(images), seen, np.concatenate(prefixes))


def sha256_prefixes(digests: pa.Array) -> NDArray[np.uint64]:
    """The first 64 bits of each digest in hex."""
    return np.frombuffer(bytes.fromhex("".join(digest[:16] for digest in digests.to_pylist())), np.uint64)


def _rows(of_split: NDArray[np.bool_], passed: int, wanted: Places) -> Places:
    """The wanted rows of a batch, where `passed` images of the split came before it."""
    rows = np.flatnonzero(of_split)
    first, last = np.searchsorted(wanted, [passed, passed + len(rows)])
    return rows[wanted[first:last] - passed]


def _shown(images: pa.Table) -> Places:
    """A proportional share of each split, evenly spread in order of path."""
    splits = np.asarray(images["split"].to_numpy())
    shares = [np.flatnonzero(splits == split) for split in sorted(set(splits))]
    part = min(1.0, MAX_SHOWN / len(images))
    return np.concatenate([rows[evenly(len(rows), max(1, int(len(rows) * part)))] for rows in shares])


def _scores(results: Results, images: pa.Table) -> NDArray[np.float32]:
    found = np.full((len(images), results.report.n_components), np.nan, np.float32)
    splits = np.asarray(images["split"].to_numpy())
    for split in results.splits:
        rows = np.flatnonzero(splits == split)
        places = dict(zip(images["path"].take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))
        for batch in results.score_batches(split, ["path", "pca"]):
            if batch["pca"].type.list_size != found.shape[1]:
                raise OutputError(
                    f"scores in {results.root} do not have {found.shape[1]} components: run mission9 verify for details"
                )
            at = np.array([places.get(path, -1) for path in batch["path"].to_pylist()], np.int64)
            found[at[at >= 0]] = vectors(batch["pca"])[at >= 0]
    if np.isnan(found).any():
        raise OutputError(f"scores are missing in {results.root}: run mission9 verify for details")
    return found
