"""File systems that are read-only, permissions that are lost in the middle, and who may read what is made."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.disk.failures import in_words
from mission9.disk.files import patiently
from mission9.errors import StorageError
from mission9.runners import InProcessRunner as Plain
from mission9.runners import Task
from tests.conftest import InProcessRunner
from tests.hostile import (
    PROGRAM,
    arguments,
    in_shell,
    is_whole,
    mission9,
    only_line,
    own_mounts,
    tables,
    without_power,
)


@pytest.fixture
def output(tree: Path, tmp_path: Path) -> Path:
    """A finished run."""
    folder = tmp_path / "out"
    run(RunConfig(input=str(tree), output=str(folder), weights="demo", components=3), InProcessRunner())
    return folder


def test_an_output_on_a_read_only_file_system(tree: Path, output: Path) -> None:
    script = f"mount --bind {output} {output}; mount -o remount,bind,ro {output}"
    before = tables(output)
    for command in (arguments(tree, output), arguments(tree, output / "new")):
        line = only_line(in_shell(script, *command, before=own_mounts()), 2)
        assert "cannot be written: Read-only file system" in line
    assert tables(output) == before
    assert in_shell(script, "verify", str(output), before=own_mounts()).returncode == 0
    assert mission9(*arguments(tree, output)).returncode == 0


def test_a_result_stands_though_what_it_replaced_cannot_be_deleted(tree: Path, output: Path) -> None:
    """As on NFS, where a reader has it open: the system says that it is busy."""
    old = output / "features" / "open"
    old.mkdir()
    script = f"mount -t tmpfs none {old}"
    fewer = [*arguments(tree, output)[:-1], "2"]
    done = in_shell(script, *fewer, before=own_mounts())
    assert (done.returncode, json.loads((output / "run.json").read_bytes())["n_components"]) == (0, 2), done.stderr
    assert list((output / "_state/trash").rglob("open"))
    assert mission9(*fewer).returncode == 0
    assert not (output / "_state/trash").exists()


def test_an_output_that_this_user_may_not_write(tree: Path, output: Path) -> None:
    (output / "_state").chmod(0o555)
    (output / "_state/lock").chmod(0o444)
    line = only_line(mission9(*arguments(tree, output), before=without_power()), 2)
    assert "cannot be written: Permission denied" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "runner",
    [
        pytest.param(["--runner", "local", "--workers", "2"], id="local"),
        pytest.param(["--runner", "spark"], id="spark", marks=pytest.mark.spark),
    ],
)
def test_permission_lost_in_the_middle(runner: list[str], sample: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [*without_power(), *PROGRAM, *arguments(sample, output, *runner)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (markers := list(output.glob("_state/shards/*/*.json"))):
            assert process.poll() is None
            time.sleep(0.01)
        shards = markers[0].parent
        shards.chmod(0o555)
        _, told = process.communicate(timeout=120)
    shards.chmod(0o755)
    assert process.returncode == 1
    line = only_line(subprocess.CompletedProcess([], process.returncode, "", told))
    assert f"this user may not read or write {shards}" in line
    report = run(RunConfig(input=str(sample), output=str(output), weights="demo", components=3))
    assert report.images_inferred < 640
    assert is_whole(output)


def test_a_folder_that_is_deleted_in_the_middle(tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    class Deletes(Plain):
        def map(self, task: Task, count: int) -> list[bytes]:
            for folder in output.glob("_state/shards/*"):
                folder.rename(tmp_path / "elsewhere")
            return super().map(task, count)

    config = RunConfig(input=str(tree), output=str(output), weights="demo", components=3)
    with pytest.raises(StorageError, match="is gone, deleted while it was in use"):
        run(config, Deletes())
    assert run(config, InProcessRunner()).images_inferred == 15


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_what_is_made_is_open_to_those_whom_the_umask_allows(umask: int, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = arguments(tree, output, "--runner", "local", "--workers", "2")
    done = mission9(*command, preexec_fn=lambda: os.umask(umask))
    assert done.returncode == 0, done.stderr
    made = [output, *output.rglob("*")]
    assert len(made) > 30
    for path in made:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--runner", "local", "--workers", "2"], id="local"),
        pytest.param(["--runner", "local", "--workers", "2", "--precision", "int8"], id="int8"),
        pytest.param(["--runner", "spark"], id="spark", marks=pytest.mark.spark),
    ],
)
def test_temporary_files_are_nobody_elses_and_gone_in_the_end(options: list[str], sample: Path, tmp_path: Path) -> None:
    """Also when the run is killed; what Spark leaves is of no use to anybody, and goes when its Java ends."""
    temporary, output = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    command = [*PROGRAM, *arguments(sample, output, *options)]
    seen: set[Path] = set()
    with (
        (tmp_path / "told").open("w") as told,
        subprocess.Popen(command, env=environment, stdout=told, stderr=told) as process,
    ):
        while not list(output.glob("_state/shards/*/*.json")):
            assert process.poll() is None, (tmp_path / "told").read_text()
            with contextlib.suppress(FileNotFoundError):
                for path in temporary.iterdir():
                    seen.add(path)
                    if path.is_dir():
                        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
                    assert path.stat().st_uid == os.geteuid()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert run(RunConfig(input=str(sample), output=str(output), weights="demo", components=3)).featured == 640
    if "spark" not in options:
        assert not list(temporary.iterdir())
    assert not [path for path in (output / "_state").rglob("*") if path.name.startswith((".", "mission9-"))]


def test_each_error_of_the_system_is_a_sentence_with_the_file(tmp_path: Path) -> None:
    for number in (13, 1, 27, 28, 30, 5, 23, 24, 116, 122, 75):
        told = in_words(OSError(number, os.strerror(number), str(tmp_path / "x")), [tmp_path])
        assert "\n" not in told
        assert str(tmp_path / "x") in told or number in (23, 24), told


def test_patience_has_an_end_and_is_not_had_twice_in_a_row() -> None:
    calls: list[float] = []

    def fails(number: int) -> None:
        calls.append(time.monotonic())
        raise OSError(number, os.strerror(number))

    for number in (2, 13, 28, 30):
        with pytest.raises(OSError, match=os.strerror(number)):
            patiently(lambda: fails(number))  # noqa: B023 (called at once)
    assert len(calls) == 4
    calls.clear()
    with pytest.raises(OSError, match="Input/output"):
        patiently(lambda: fails(5))
    assert len(calls) == 5
    assert 1 < calls[-1] - calls[0] < 5
    with pytest.raises(OSError, match="Input/output"):
        patiently(lambda: fails(5))
    assert len(calls) == 6
    assert patiently(lambda: 7) == 7
    calls.clear()

    def fails_once() -> int:
        if not calls:
            fails(5)
        return 8

    assert patiently(fails_once) == 8
