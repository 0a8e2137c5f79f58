"""File systems that are read-only, permissions that are lost in the middle, and who may read what is made."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.errors import StorageError
from mission9.runners.base import InProcessRunner as Plain
from mission9.runners.base import Task
from mission9.storage.local.errors import describe_error
from mission9.storage.local.files import retry_io
from tests.conftest import InProcessRunner
from tests.support import held_up
from tests.support.finished import copy_tree, write_fruits, write_tree
from tests.support.forks import Forks
from tests.support.hostile import (
    arguments,
    in_shell,
    is_whole,
    mission9,
    mounts_if_any,
    only_line,
    own_mounts,
    tables,
    without_power,
)

pytestmark = pytest.mark.xdist_group("test_forbidden_disks")  # which has one process that forks


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(before=mounts_if_any()) as started:
        yield started


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """The tree, which no test here changes."""
    return write_tree(tmp_path_factory.mktemp("forbidden") / "images", pictures)


@pytest.fixture(scope="module")
def finished(images: Path) -> Path:
    """A finished run."""
    output = images.parent / "finished"
    run(RunConfig(input=str(images), output=str(output), weights="demo", components=3), InProcessRunner())
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return copy_tree(finished, tmp_path / "out")


@pytest.mark.slow
def test_an_output_on_a_read_only_file_system(forks: Forks, images: Path, output: Path) -> None:
    own_mounts()
    script = f"mount --bind {output} {output}; mount -o remount,bind,ro {output}"
    before = tables(output)
    for command in (arguments(images, output), arguments(images, output / "new")):
        line = only_line(forks.run(*command, script=script), 2)
        assert "cannot be written: Read-only file system" in line
    assert tables(output) == before
    assert in_shell(script, "verify", str(output), before=own_mounts()).returncode == 0
    assert forks.run(*arguments(images, output)).returncode == 0


@pytest.mark.slow
def test_a_result_stands_though_what_it_replaced_cannot_be_deleted(forks: Forks, images: Path, output: Path) -> None:
    """As on NFS, where a reader has it open: the system says that it is busy."""
    own_mounts()
    old = output / "features" / "open"
    old.mkdir()
    fewer = [*arguments(images, output)[:-1], "2"]
    done = forks.run(*fewer, script=f"mount -t tmpfs none {old}")
    assert (done.returncode, json.loads((output / "run.json").read_bytes())["n_components"]) == (0, 2), done.stderr
    assert list((output / "_state/trash").rglob("open"))
    assert forks.run(*fewer).returncode == 0
    assert not (output / "_state/trash").exists()


def test_an_output_that_this_user_may_not_write(images: Path, output: Path) -> None:
    (output / "_state").chmod(0o555)
    (output / "_state/lock").chmod(0o444)
    line = only_line(mission9(*arguments(images, output), before=without_power()), 2)
    assert "cannot be written: Permission denied" in line


# Two shards are committed; the others wait until somebody says so.
WAITING = """
    def __call__(self, number):
        while number > 1 and not Path({go_on!r}).exists():
            time.sleep(0.01)
        return super().__call__(number)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "runner",
    [
        pytest.param(["--runner", "local", "--workers", "1"], id="local"),
        pytest.param(["--runner", "spark"], id="spark", marks=pytest.mark.spark),
    ],
)
def test_permission_lost_in_the_middle(runner: list[str], tmp_path: Path) -> None:
    images, output, go_on = tmp_path / "images", tmp_path / "out", tmp_path / "go on"
    write_fruits(images, varieties=2, training=10, test=6)
    words = arguments(images, output, *runner)
    command = held_up.command(WAITING.format(go_on=str(go_on)), *words, shard_images=4)
    with subprocess.Popen(
        [*without_power(), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        held_up.wait_until(lambda: process.poll() is not None or list(output.glob("_state/shards/*/*.json")))
        assert process.poll() is None
        shards = next(output.glob("_state/shards/*/*.json")).parent
        shards.chmod(0o555)
        go_on.touch()
        _, told = process.communicate(timeout=300)
    shards.chmod(0o755)
    line = only_line(subprocess.CompletedProcess([], process.returncode, "", told))
    assert f"no permission to read or write {shards}" in line
    config = RunConfig(input=str(images), output=str(output), weights="demo", components=3)
    assert run(config, InProcessRunner()).images_inferred < 32
    assert is_whole(output)


def test_a_folder_that_is_deleted_in_the_middle(tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    class Deletes(Plain):
        def map(self, task: Task, count: int) -> list[bytes]:
            for folder in output.glob("_state/shards/*"):
                folder.rename(tmp_path / "elsewhere")
            return super().map(task, count)

    config = RunConfig(input=str(tree), output=str(output), weights="demo", components=3)
    with pytest.raises(StorageError, match="was deleted while in use"):
        run(config, Deletes())
    assert run(config, InProcessRunner()).images_inferred == 15


@pytest.mark.parametrize(
    ("umask", "options"),
    [
        pytest.param(0o022, ["--no-report"], marks=pytest.mark.slow),
        pytest.param(0o027, ["--runner", "local", "--workers", "1"], marks=pytest.mark.slow),
        (0o077, []),
        pytest.param(0o002, ["--no-report"], marks=pytest.mark.slow),
    ],
    ids=["022", "027-local", "077", "002"],
)
def test_what_is_made_is_open_to_those_whom_the_umask_allows(
    umask: int, options: list[str], forks: Forks, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = forks.run(*arguments(images, output, *options), umask=umask)
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
        pytest.param(["--runner", "local", "--workers", "1", "--precision", "int8"], id="int8"),
        pytest.param(["--runner", "spark"], id="spark", marks=pytest.mark.spark),
    ],
)
def test_temporary_files_are_nobody_elses_and_gone_in_the_end(options: list[str], tmp_path: Path) -> None:
    """Also when the run is killed; what Spark leaves is of no use to anybody, and goes when its Java ends."""
    temporary, output, images = tmp_path / "temporary", tmp_path / "out", tmp_path / "images"
    temporary.mkdir()
    write_fruits(images, varieties=2, training=10, test=6)
    environment = os.environ | {"TMPDIR": str(temporary)}
    command = held_up.command(held_up.UP_TO_THE_SECOND, *arguments(images, output, *options), shard_images=4)

    def is_in_the_middle() -> bool:
        with contextlib.suppress(FileNotFoundError):
            for path in temporary.iterdir():
                if path.is_dir():
                    assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
                assert path.stat().st_uid == os.geteuid()
        return process.poll() is not None or bool(list(output.glob("_state/shards/*/*.json")))

    with (
        (tmp_path / "told").open("w") as told,
        subprocess.Popen(command, env=environment, stdout=told, stderr=told) as process,
    ):
        held_up.wait_until(is_in_the_middle)
        assert process.poll() is None, (tmp_path / "told").read_text()
        process.send_signal(signal.SIGKILL)
    config = RunConfig(input=str(images), output=str(output), weights="demo", components=3)
    assert run(config, InProcessRunner()).featured == 32
    if "spark" not in options:
        assert not list(temporary.iterdir())
    assert not [path for path in (output / "_state").rglob("*") if path.name.startswith((".", "mission9-"))]


def test_each_error_of_the_system_is_a_sentence_with_the_file(tmp_path: Path) -> None:
    for number in (13, 1, 27, 28, 30, 5, 23, 24, 116, 122, 75):
        told = describe_error(OSError(number, os.strerror(number), str(tmp_path / "x")), [tmp_path])
        assert "\n" not in told
        assert str(tmp_path / "x") in told or number in (23, 24), told


def test_patience_has_an_end_and_is_not_had_twice_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    waits: list[float] = []
    monkeypatch.setattr("mission9.storage.retry.time.sleep", waits.append)

    def fails(number: int) -> None:
        calls.append(number)
        raise OSError(number, os.strerror(number))

    for number in (2, 13, 28, 30):
        with pytest.raises(OSError, match=os.strerror(number)):
            retry_io(lambda: fails(number))  # noqa: B023 (called at once)
    assert len(calls) == 4
    assert not waits
    calls.clear()
    with pytest.raises(OSError, match="Input/output"):
        retry_io(lambda: fails(5))
    assert (len(calls), len(waits)) == (5, 4)
    assert 1 < sum(waits) < 5
    with pytest.raises(OSError, match="Input/output"):
        retry_io(lambda: fails(5))
    assert (len(calls), len(waits)) == (6, 4)
    assert retry_io(lambda: 7) == 7
    calls.clear()

    def fails_once() -> int:
        if not calls:
            fails(5)
        return 8

    assert retry_io(fails_once) == 8
    assert len(waits) == 5
