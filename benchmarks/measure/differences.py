"""Differences of a result from the one of a run in peace, and results that are published but not whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from benchmarks.measure.races import components

from mission9.errors import OutputError
from mission9.output.layout import FEATURES_FOLDER, REJECTS_FOLDER, done_file, scores_folder
from mission9.results.verify import verify_output
from mission9.schema import vectors

_KEYS = ["path", "split", "label", "width", "height", "bytes", "sha256"]


def half_done(output: Path) -> Iterator[str]:
    """Yield the faults of a folder that readers would take for a result."""
    report = output / "run.json"
    if not report.exists():
        return
    told = json.loads(report.read_bytes())["n_components"]
    if components(output) != {told}:
        yield f"tables of {components(output)} components beside a run.json of {told}"
    if not (output / "_state" / "ready").exists():
        yield from verify_output(str(output))


def differences(output: Path, right: Path) -> Iterator[str]:
    """Yield the differences from the result `right`, row for row, and names that are left over."""
    try:
        yield from verify_output(str(output))
    except OutputError as error:
        yield str(error)
        return
    mine, theirs = (pq.read_table(folder / FEATURES_FOLDER).sort_by("path") for folder in (output, right))
    if not mine.select(_KEYS).equals(theirs.select(_KEYS)):
        yield "other rows of features"
    elif not np.allclose(vectors(mine["features"]), vectors(theirs["features"]), rtol=1e-5, atol=1e-5):
        yield "other features"
    if not pq.read_table(output / REJECTS_FOLDER).equals(pq.read_table(right / REJECTS_FOLDER)):
        yield "other rejects"
    yield from (f"other scores of {split}" for split in ("Training", "Test") if not _same_scores(output, right, split))
    left = list(_left_over(output))
    if left:
        yield f"left over: {', '.join(left)}"


def _same_scores(output: Path, right: Path, split: str) -> bool:
    name = f"{scores_folder(split)}_csv/part-00000.csv"
    mine, theirs = (pa.csv.read_csv(folder / name) for folder in (output, right))
    if mine.schema != theirs.schema or not mine.select(["path", "label"]).equals(theirs.select(["path", "label"])):
        return False
    found, wanted = (np.stack([column.to_numpy() for column in table.columns[2:]]) for table in (mine, theirs))
    return np.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max()))


def _left_over(output: Path) -> Iterator[str]:
    state = output / "_state"
    yield from (str(file.relative_to(output)) for file in output.rglob("*") if file.name.startswith("."))
    yield from (name for name in ("work", "ready", "trash", "chunks") if (state / name).exists())
    folder = state / "shards" / json.loads((output / "run.json").read_bytes())["fingerprint"]
    plan = done_file(folder)
    kept = {*pq.read_table(plan, columns=["part"])["part"].unique().to_pylist(), "images", "done", "todo"}
    yield from (file.name for file in folder.iterdir() if file.name.split(".")[0] not in kept)
