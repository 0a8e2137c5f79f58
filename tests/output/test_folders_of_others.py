"""Folders that others put beside a result, under names that a later result may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.errors import OutputError
from tests.conftest import InProcessRunner


def test_a_folder_of_others_beside_a_result_is_not_replaced_by_a_table_that_comes_to_be_called_so(
    tree: Path, tmp_path: Path, in_process: InProcessRunner, pictures: list[bytes]
) -> None:
    output = tmp_path / "out"
    config = RunConfig(input=str(tree), output=str(output), weights="demo", components=3, no_report=True)
    run(config, in_process)
    before = (output / "run.json").read_bytes()
    theirs = output / "validation_pca" / "notes.txt"
    theirs.parent.mkdir()
    theirs.write_text("precious")
    (tree / "Validation/a").mkdir(parents=True)
    (tree / "Validation/a/0.jpg").write_bytes(pictures[0])
    with pytest.raises(OutputError, match="validation_pca was not written by mission9"):
        run(config, in_process)
    assert theirs.read_text() == "precious"
    assert (output / "run.json").read_bytes() == before
    theirs.unlink()
    theirs.parent.rmdir()
    assert run(config, in_process).featured == 16
    assert (output / "validation_pca").is_dir()
