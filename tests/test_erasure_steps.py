"""The steps of an erasure, in their order: what is noted first, and what goes though no table has it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.erasure.chosen import Request
from mission9.erasure.erase import erase
from mission9.erasure.tombstones import Tombstones
from mission9.output.folder import Output
from tests.conftest import InProcessRunner

ERASED = ["Test/a/1.jpg", "Training/a/0.jpg"]


@pytest.fixture
def config(tree: Path, tmp_path: Path, in_process: InProcessRunner) -> RunConfig:
    """The settings of a run that is finished."""
    config = RunConfig(
        input=str(tree), output=str(tmp_path / "out"), weights="demo", components=3, no_report=True, runner="local"
    )
    run(config, in_process)
    return config


def test_images_are_noted_before_the_first_of_them_is_deleted(
    config: RunConfig, in_process: InProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mission9.erasure.erase.delete_sources", killed)
        with pytest.raises(KeyboardInterrupt):
            erase(config.output, Request("erase", ERASED, with_source=True))
    noted = Tombstones.of(Output(Path(config.output)).state_files)
    assert [name for name in ERASED if noted.has(name)] == ERASED
    assert noted.pending.images == noted.hashes_of(ERASED)
    assert run(config, in_process).skipped == {"(erased)": 2}  # whose files are all there still


def test_what_killed_processes_left_in_the_temporary_folder_goes_with_an_erasure(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    left, of_others = temporary / "mission9-work-left", temporary / "of others"
    for folder in (left, of_others):
        folder.mkdir(parents=True)
        (folder / "names").write_text(ERASED[0])
        os.utime(folder, (time.time() - 3600,) * 2)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert erase(config.output, Request("erase", ERASED)) is not None
    assert not left.exists()
    assert of_others.exists()
