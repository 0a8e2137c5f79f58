from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9.schema import projected
from mission9.stages import save_results as module
from mission9.stages.save_results import save_results


def chunk(labels: list[str]) -> pa.Table:
    rows = [{"path": f"{n}.jpg", "split": "all", "label": label, "pca": [n, 0.1]} for n, label in enumerate(labels)]
    return pa.Table.from_pylist(rows, schema=projected(2))


def test_one_file_a_label_and_one_csv(tmp_path: Path) -> None:
    save_results([chunk(["a", "a", "b"]), chunk(["b", "c"])], tmp_path / "p", tmp_path / "c", components=2)
    files = sorted(str(file.relative_to(tmp_path / "p")) for file in (tmp_path / "p").rglob("*.parquet"))
    assert files == [f"label={label}/part-00000.parquet" for label in "abc"]
    assert pq.read_schema(tmp_path / "p" / files[0]).names == ["path", "split", "pca"]
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["part-00000.csv"]
    table = pd.read_csv(tmp_path / "c" / "part-00000.csv")
    assert list(table.columns) == ["path", "label", "pc_1", "pc_2"]
    assert table["pc_2"].dtype == np.float64
    assert len(table) == 5


def test_labels_that_come_and_go_lose_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_LABELS", 2)
    labels = list("abcabcabc")
    save_results([chunk(labels), chunk(labels)], tmp_path / "p", tmp_path / "c", components=2)
    counts = {label: len(pq.read_table(tmp_path / "p" / f"label={label}")) for label in "abc"}
    assert counts == {"a": 6, "b": 6, "c": 6}


def test_csv_survives_hostile_text(tmp_path: Path) -> None:
    labels = ['a,"b"\nc', " a ", "007", "NULL", "=1+1", "é🍑", "line\r\nend"]
    save_results([chunk(labels)], tmp_path / "p", tmp_path / "c", components=2, plain_csv=True)
    table = pd.read_csv(tmp_path / "c" / "part-00000.csv", dtype={"label": str}, keep_default_na=False)
    assert table["label"].tolist() == labels


def test_no_text_in_the_csv_is_a_formula_and_each_comes_back(tmp_path: Path) -> None:
    texts = ["=1+1", "@SUM(A1)", "-1", "+1", "\t=x", " =x", "'=x", "''@", "'quoted'", "a=b", "", "7", "\r+1"]
    texts += ["x;=cmd|calc!A0;y", "x;'y", "\uff1d1", "\u3000=1"]
    save_results([chunk(texts)], tmp_path / "p", tmp_path / "c", components=2)
    save_results([chunk(texts)], tmp_path / "q", tmp_path / "d", components=2, plain_csv=True)
    safe, plain = (
        pd.read_csv(
            tmp_path / name / "part-00000.csv", dtype={"label": str}, keep_default_na=False, lineterminator="\n"
        )
        for name in ("c", "d")
    )
    assert plain["label"].tolist() == texts
    assert not [text for text in safe["label"] if text.strip()[:1] in ("=", "+", "-", "@")]
    back = safe["label"].str.replace(r"(^|[;|\t\r\n])'", r"\1", regex=True)  # as docs/reference/output.md says
    assert back.tolist() == texts
