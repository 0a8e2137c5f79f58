"""The notebook: committed as it ran, free of the machine it ran on, and it runs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from mission9.sample import VARIETIES
from tests.conftest import REPOSITORY
from tests.support.finished import write_fruits

NOTEBOOK = REPOSITORY / "notebooks" / "mission9.ipynb"


def read(file: Path) -> nbformat.NotebookNode:
    return nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call, no-any-return]


def test_it_is_committed_with_what_it_gave() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in read(NOTEBOOK).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert len(text) < 1_000_000
    assert not [word for word in ("/home/", "/root", "/tmp", str(REPOSITORY)) if word in text]


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("databricks", [False, True], ids=["here", "as if on Databricks"])
def test_it_runs(databricks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    if databricks:
        monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
        monkeypatch.setenv("NOTEBOOK_FOLDER", str(tmp_path / "data" / "notebook"))
        # Few images, which are there already; elsewhere the notebook draws the sample, and Spark does the work.
        write_fruits(tmp_path / "data" / "notebook" / "fruits", varieties=len(VARIETIES), training=4, test=2)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # the kernel's Python is this one
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOK, folder)
    notebook = read(folder / NOTEBOOK.name)
    client = NotebookClient(notebook, timeout=1700, resources={"metadata": {"path": str(folder)}})
    client.execute()
    assert (tmp_path / "data" / "notebook" / "Results" / "run.json").exists()
    shapes = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.get("text")]
    assert any("components keep" in text for text in shapes)
