"""The names of the files in an output."""

from __future__ import annotations

from pathlib import Path

from mission9.errors import OutputError
from mission9.schema import SPLITS

FEATURES_FOLDER, REJECTS_FOLDER, MODEL_FOLDER = "features", "rejects", "pca_model"
REPORT, PAGE = "run.json", "report.html"

# The state, which only mission9 reads, and its files.
STATE, SHARDS, RECEIPTS = "_state", "shards", "receipts"
_NAMES, CHECKSUMS = "tables.json", "checksums.json"
AUDIT_LOG, ERASED_FILE, DONE = "audit.jsonl", "erased.json", "done.parquet"


def plan_file(folder: Path) -> Path:
    """The path of the plan of the last run, finished or not."""
    return folder / "images.parquet"


def todo_file(folder: Path) -> Path:
    """The path of the pending rows in the plan of the last run."""
    return folder / "todo.parquet"


def done_file(folder: Path) -> Path:
    """The path of the plan of the current result: a failed run, even on other input, does not change it."""
    return folder / DONE


def scores_folder(split: str) -> str:
    """The name of the folder of a split's scores.

    Raises:
        OutputError: mission9 has no such split.
    """
    if split not in SPLITS:
        raise OutputError(
            f"the result names a split {split!r}, which mission9 never writes: recreate it with mission9 run"
        )
    return f"{split.lower()}_pca"


def csv_folder(split: str) -> str:
    """The name of the folder of the CSV of a split's scores."""
    return f"{scores_folder(split)}_csv"


# Every name that a result may use besides `run.json`, `report.html` and the state.
TABLES = frozenset(
    [FEATURES_FOLDER, REJECTS_FOLDER, MODEL_FOLDER]
    + [name(split) for split in SPLITS for name in (scores_folder, csv_folder)]
)
