"""A committed file that was damaged since: a warning names it, and what it holds is computed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.output.shards import read_marker
from tests.conftest import InProcessRunner
from tests.support.hostile import tables


def test_a_committed_file_that_is_damaged_is_told_and_its_images_alone_are_computed_again(
    tree: Path, tmp_path: Path, in_process: InProcessRunner, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"input": str(tree), "output": str(tmp_path / "out"), "weights": "demo", "components": 3}
    config = RunConfig(**settings, no_report=True)
    run(config, in_process)
    wanted = tables(tmp_path / "out")
    committed = sorted((tmp_path / "out/_state/shards").glob("*/*.features.parquet"))
    assert len(committed) == 2  # of Test and of Training
    file = committed[0]
    marker = read_marker(file.parent, file.name.partition(".")[0])
    assert marker is not None
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)
    caplog.clear()
    report = run(config, in_process)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"{file} is damaged, and what it holds is computed again"]
    assert report.images_inferred == marker.images < report.listed
    assert tables(tmp_path / "out") == wanted
