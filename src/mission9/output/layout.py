"""The names of the files in an output."""

from __future__ import annotations

from pathlib import Path

from mission9.errors import OutputError
from mission9.schema import SPLITS

FEATURES_FOLDER, REJECTS_FOLDER, MODEL_FOLDER = "features", "rejects", "pca_model"
REPORT, PAGE = "run.json", "report.html"

# The state, which mission9 alone reads, and what lies in it.
STATE, SHARDS, RECEIPTS = "_state", "shards", "receipts"
_NAMES, CHECKSUMS = "tables.json", "checksums.json"
AUDIT_LOG, ERASED_FILE, DONE = "audit.jsonl", "erased.json", "done.parquet"


def plan_file(folder: Path) -> Path:
    """Return where the plan of the last run is, finished or not."""
    return folder / "images.parquet"


def todo_file(folder: Path) -> Path:
    """Return where the rows are that the plan of the last run has to do."""
    return folder / "todo.parquet"


def done_file(folder: Path) -> Path:
    """Return where the plan of the result that stands is: a run of another input that fails makes nothing unknown."""
    return folder / DONE


def scores_folder(split: str) -> str:
    """Return the name of the folder of a split's scores; its CSV lies in the same with `_csv`.

    Raises:
        OutputError: mission9 has no such split.
    """
    if split not in SPLITS:
        raise OutputError(
            f"the result names a split {split!r}, which mission9 never writes: make it again by mission9 run"
        )
    return f"{split.lower()}_pca"


# Every name that a result may take beside `run.json`, `report.html` and the state.
TABLES = frozenset(
    [FEATURES_FOLDER, REJECTS_FOLDER, MODEL_FOLDER]
    + [scores_folder(split) + ending for split in SPLITS for ending in ("", "_csv")]
)
