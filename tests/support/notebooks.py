"""Run the notebook as Jupyter does: in a kernel of its own, whose folder is that of the notebook."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "mission9.ipynb"


def read(file: Path = NOTEBOOK) -> nbformat.NotebookNode:
    return nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call, no-any-return]


def execute(root: Path, config: dict[str, Any] | None = None, more: Sequence[str] = ()) -> str:
    """Run a copy of the notebook below `root`, with another CONFIG and `more` cells in the end; return what it shows.

    The Python of the kernel and of Spark's workers is this one. Images are shown as `image/png`.
    """
    from nbclient import NotebookClient

    folder = root / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOK, folder)
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=shutil.ignore_patterns("mission9", "*.egg-info"))
    notebook = read(folder / NOTEBOOK.name)
    if config is not None:
        parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
        parameters.source = f"CONFIG = {config!r}"
    new_cell = nbformat.v4.new_code_cell
    notebook.cells += [new_cell(source) for source in more]  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=1700, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") or str(dict(output.get("data", {}))) for output in outputs)
