from __future__ import annotations

import unicodedata
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9.errors import OutputError
from mission9.schema import projected
from mission9.stages import save_results as module
from mission9.stages.save_results import LabelWriter, save_results
from mission9.storage.local.files import make_folder
from mission9.storage.local.names import label_of_folder

CSV = "part-00000.csv"


def chunk(labels: list[str]) -> pa.Table:
    rows = [{"path": f"{n}.jpg", "split": "all", "label": label, "pca": [n, 0.1]} for n, label in enumerate(labels)]
    return pa.Table.from_pylist(rows, schema=projected(2))


def test_one_file_a_label_and_one_csv(tmp_path: Path) -> None:
    save_results([chunk(["a", "a", "b"]), chunk(["b", "c"])], tmp_path / "p", tmp_path / "c" / CSV, components=2)
    files = sorted(str(file.relative_to(tmp_path / "p")) for file in (tmp_path / "p").rglob("*.parquet"))
    assert files == [f"label={label}/part-00000.parquet" for label in "abc"]
    assert pq.read_schema(tmp_path / "p" / files[0]).names == ["path", "split", "pca"]
    assert [file.name for file in (tmp_path / "c").iterdir()] == [CSV]
    table = pd.read_csv(tmp_path / "c" / CSV)
    assert list(table.columns) == ["path", "label", "pc_1", "pc_2"]
    assert table["pc_2"].dtype == np.float64
    assert len(table) == 5


def test_labels_that_come_and_go_lose_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_LABELS", 2)
    labels = list("abcabcabc")
    save_results([chunk(labels), chunk(labels)], tmp_path / "p", tmp_path / "c" / CSV, components=2)
    counts = {label: len(pq.read_table(tmp_path / "p" / f"label={label}")) for label in "abc"}
    assert counts == {"a": 6, "b": 6, "c": 6}


def test_csv_survives_hostile_text(tmp_path: Path) -> None:
    labels = ['a,"b"\nc', " a ", "007", "NULL", "=1+1", "é🍑", "line\r\nend"]
    save_results([chunk(labels)], tmp_path / "p", tmp_path / "c" / CSV, components=2, plain_csv=True)
    table = pd.read_csv(tmp_path / "c" / CSV, dtype={"label": str}, keep_default_na=False)
    assert table["label"].tolist() == labels


def test_no_text_in_the_csv_is_a_formula_and_each_comes_back(tmp_path: Path) -> None:
    texts = ["=1+1", "@SUM(A1)", "-1", "+1", "\t=x", " =x", "'=x", "''@", "'quoted'", "a=b", "", "7", "\r+1"]
    texts += ["x;=cmd|calc!A0;y", "x;'y", "\uff1d1", "\u3000=1"]
    save_results([chunk(texts)], tmp_path / "p", tmp_path / "c" / CSV, components=2)
    save_results([chunk(texts)], tmp_path / "q", tmp_path / "d" / CSV, components=2, plain_csv=True)
    safe, plain = (
        pd.read_csv(tmp_path / name / CSV, dtype={"label": str}, keep_default_na=False, lineterminator="\n")
        for name in ("c", "d")
    )
    assert plain["label"].tolist() == texts
    assert not [text for text in safe["label"] if text.strip()[:1] in ("=", "+", "-", "@")]
    back = safe["label"].str.replace(r"(^|[;|\t\r\n])'", r"\1", regex=True)  # as docs/reference/output.md says
    assert back.tolist() == texts


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new folders be links to those of which the names are the same without case and accents, as on such disks."""

    def make(folder: Path) -> None:
        make_folder(folder.parent)
        folder.mkdir()
        for word in ("Apple", "apple", "APPLE", "Ä", "ä", "e\u0301", "\u00e9"):
            if _folded(f"label={word}") == _folded(folder.name) and word not in folder.name:
                (folder.parent / f"label={word}").symlink_to(folder.name)

    monkeypatch.setattr("mission9.stages.save_results.make_folder", make)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def write_labels(folder: Path, *labels: str) -> None:
    rows = [(f"{label}/{n}.jpg", label, [float(n)]) for n in range(2) for label in labels]
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    splits = pa.array(["Test"] * len(rows))
    table = pa.table([columns[0], splits, columns[1], columns[2]], ["path", "split", "label", "pca"])
    with LabelWriter(folder, 1) as writer:
        for batch in table.cast(projected(1)).to_batches():
            writer.write(batch)


@pytest.mark.usefixtures("folding")
@pytest.mark.parametrize("labels", [("Apple", "apple", "pear"), ("\u00e9", "e\u0301")])
def test_labels_that_a_disk_takes_for_one_are_kept_apart(labels: tuple[str, ...], tmp_path: Path) -> None:
    write_labels(tmp_path / "t", *labels)
    folders = [folder for folder in (tmp_path / "t").iterdir() if not folder.is_symlink()]
    assert sorted(label_of_folder(folder.name) for folder in folders) == sorted(labels)
    for folder in folders:
        paths = pq.ParquetFile(folder / "part-00000.parquet").read()["path"].to_pylist()
        assert paths == [f"{label_of_folder(folder.name)}/{n}.jpg" for n in range(2)]
        query = f"select distinct label from read_parquet('{folder}/*', hive_partitioning=true)"
        assert duckdb.execute(query).fetchall() == [(label_of_folder(folder.name),)]


@pytest.mark.usefixtures("folding")
def test_labels_that_cannot_be_kept_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="so the label ä and another share a folder"):
        write_labels(tmp_path / "t", "Ä", "ä")
