"""The steps of an erasure, in their order: what is noted first, and what goes though no table has it."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mission9 import RunConfig, run
from mission9.erasure.erase import erase
from mission9.erasure.rewrite import rewrite
from mission9.erasure.selection import ErasureRequest
from mission9.output.layout import done_file, plan_file
from mission9.output.local import Output
from mission9.output.open import output_at
from mission9.output.shards import read_features, read_marker, read_rejects
from mission9.output.tables import read_table
from mission9.output.tombstones import Tombstones
from tests.conftest import InProcessRunner
from tests.support.finished import copy_tree, with_changes

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
        patch.setattr("mission9.sources.deletion.FilesToDelete.delete", killed)
        with pytest.raises(KeyboardInterrupt):
            erase(config.output, ErasureRequest("erase", ERASED, with_source=True))
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
    assert erase(config.output, ErasureRequest("erase", ERASED)) is not None
    assert not left.exists()
    assert of_others.exists()


class Killed(BaseException):
    """The end of a process whose every change of a file from then on does not come about."""


def killed_at(moment: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> bool:
    """Carry out `work` as far as its first `moment` changes of files; tell whether it would have made more."""
    changes = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def change(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            if changes == moment:
                raise Killed
            changes += 1
            return real(*arguments, **options)

        return change

    with monkeypatch.context() as patch:
        for name in ("fsync", "link", "rename", "replace", "unlink"):  # pathlib's are these
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        except Killed:
            return True
    return False


def assert_is_swept(folder: Path) -> set[str]:
    """In a folder of shards lie plans, and what markers vouch for; the keys of these."""
    keys = {file.stem for file in folder.glob("*.json")}
    for key in keys:
        assert read_marker(folder, key) is not None
    left = {file.name for file in folder.iterdir() if file.name.split(".")[0] not in keys}
    assert left <= {"images.parquet", "done.parquet", "todo.parquet"}
    return keys


def test_killed_at_each_change_of_the_shards_nothing_is_left_that_no_marker_vouches_for(
    config: RunConfig, tree: Path, in_process: InProcessRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "Training/a/broken.jpg").write_bytes(b"")  # so that a shard has two tables
    run(with_changes(config, max_reject_rate=0.5), in_process)
    output = Output(Path(config.output))
    (fingerprint,) = output.fingerprints()
    shards, before = output.shards(fingerprint), tmp_path / "before"
    copy_tree(shards, before)
    erased = Tombstones()
    erased.hashes = erased.hashes_of(ERASED)

    def restore() -> None:
        shutil.rmtree(shards)
        copy_tree(before, shards)

    moment, is_killed = 0, True
    while is_killed:
        restore()
        is_killed = killed_at(moment, monkeypatch, lambda: rewrite(shards, erased))
        killed = copy_tree(shards, tmp_path / f"killed at {moment}")
        with output_at(config.output).open(overwrite=False):  # by whatever command
            assert_is_swept(shards)
        for opened in (True, False):  # and by the same one, before or after that
            if not opened:
                shutil.rmtree(shards)
                copy_tree(killed, shards)
            rewrite(shards, erased)
            keys = assert_is_swept(shards)
            plans = [read_table(plan) for plan in (plan_file(shards), done_file(shards))]
            assert keys == {key for plan in plans for key in plan["part"].to_pylist()}
            for plan in plans:
                parts = set(plan["part"].to_pylist())
                tables = [read(shards, key)["path"] for key in parts for read in (read_features, read_rejects)]
                paths = sorted(path for column in tables for path in column.to_pylist())
                assert paths == sorted(plan["path"].to_pylist())
                assert len(paths) == 14
                assert not set(ERASED).intersection(paths)
        moment += 1
    assert moment > 15
