"""Disks that are full: one line that says which, the old result as it was, and a rerun that ends right."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from tests.conftest import REPOSITORY, InProcessRunner
from tests.support.finished import copy_tree, write_tree
from tests.support.forks import Forks
from tests.support.hostile import arguments, in_shell, is_whole, mission9, mounts_if_any, only_line, own_mounts, tables

pytestmark = pytest.mark.xdist_group("test_full_disks")  # which has one process that forks

# In a small file system of its own: an old result, then for each size a run that finds so many kB free, the state of
# the old result after that, and the same run with room. Prints a line of JSON for each size.
SWEEP = """
import json, os, re, shutil, sys
from pathlib import Path
from mission9 import RunConfig, run
from mission9.errors import StorageError
from mission9.runners.base import InProcessRunner
from mission9.results.verify import verify_output
from tests.support.hostile import tables

images, place, fresh, *sizes = sys.argv[1:]
place = Path(place)
settings = {"input": images, "weights": "demo"}
old = RunConfig(**settings, output=str(place / "old"), components=2)
run(old, InProcessRunner())
before = tables(place / "old")
wanted = tables(Path(fresh))
failures = set()


def attempt(size: int, *, always_again: bool = False) -> bool:
    config = RunConfig(**settings, output=str(place / "out"), components=3, preprocess="crop")
    shutil.copytree(place / "old", place / "out")
    free = shutil.disk_usage(place).free
    with open(place / "filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free - size * 1024)
    try:
        run(config, InProcessRunner())
        told = ""
    except StorageError as error:
        told = str(error)
    after = tables(place / "out") == (before if told else wanted)
    problems = list(verify_output(config.output))
    os.unlink(place / "filler")
    failure = re.sub("[0-9a-f.,]+", "", told)  # in the same file, whatever room there was
    again = None
    if always_again or failure not in failures:
        failures.add(failure)
        run(config.model_copy(update={"no_report": True}), InProcessRunner())
        again = tables(place / "out") == wanted
        problems += verify_output(config.output)
    print(json.dumps({"size": size, "told": told, "after": after, "again": again, "problems": problems}), flush=True)
    shutil.rmtree(place / "out")
    return not told


enough = {int(size): attempt(int(size), always_again=True) for size in sizes}
low, high = max(n for n in enough if not enough[n]), min(n for n in enough if enough[n])
while high - low > 4:  # to the block: what runs out last is what is written when all else is done
    middle = (low + high) // 8 * 4
    low, high = (low, middle) if attempt(middle) else (middle, high)
for blocks in (2, 3, 4):
    attempt(high - 4 * blocks)
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(before=mounts_if_any()) as started:
        yield started


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """The tree, which no test here changes."""
    return write_tree(tmp_path_factory.mktemp("full") / "images", pictures)


@pytest.fixture
def long_names(tmp_path: Path, pictures: list[bytes]) -> Path:
    """Labels of so long names that the list of checksums, in which they are, takes more than a block."""
    root = tmp_path / "images"
    for split, count in (("Training", 13), ("Test", 1)):
        for n in range(count):
            (root / split / f"{n} {'x' * 235}").mkdir(parents=True)
            (root / split / f"{n} {'x' * 235}" / "0.jpg").write_bytes(pictures[n % 10])
    return root


@pytest.mark.slow
def test_at_every_size_the_old_result_stays_and_a_run_with_room_ends_right(
    forks: Forks, long_names: Path, tmp_path: Path
) -> None:
    own_mounts()
    settings = {"input": str(long_names), "output": str(tmp_path / "fresh"), "weights": "demo", "components": 3}
    run(RunConfig(**settings, preprocess="crop"), InProcessRunner())
    assert (tmp_path / "fresh/_state/checksums.json").stat().st_size > 4096
    needed = sum(file.stat().st_size for file in (tmp_path / "fresh").rglob("*") if file.is_file()) // 1024
    # Block by block where little is written, then the large files.
    sizes = [0, 4, 8, 12, 20, 40, 60, 80, 100, 140, 200, *range(300, needed, needed // 6), needed + 4000]
    script = f"mount -t tmpfs -o size={3 * needed + 20_000}k none /mnt"
    words = [str(long_names), "/mnt", str(tmp_path / "fresh"), *map(str, sizes)]
    done = forks.run(*words, code=SWEEP, script=script, timeout=1700)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) > 20
    for at in found:
        assert at["after"], at
        assert at["again"] in (True, None), at
        assert at["problems"] == [], at
        assert not at["told"] or "not enough space" in at["told"], at
    assert found[0]["told"]
    assert "Exception ignored" not in done.stderr


# The disk becomes full at the moment from which on the new result stands, and its last small files are to be written.
FILLED = """
import os, shutil, sys
from pathlib import Path
from mission9 import RunConfig, run
from mission9.output.local import Output
from mission9.runners.base import InProcessRunner
from mission9.results.verify import verify_output

complete = Output.complete


def on_a_full_disk(self):
    with open("/mnt/filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage("/mnt").free)
    complete(self)


settings = {"input": sys.argv[1], "weights": "demo", "output": "/mnt/out"}
run(RunConfig(**settings, components=2), InProcessRunner())
list_of_checksums, report = Path("/mnt/out/_state/checksums.json"), Path("/mnt/out/run.json")
assert list_of_checksums.stat().st_size // 4096 > report.stat().st_size // 4096
Output.complete = on_a_full_disk
print(run(RunConfig(**settings, components=3), InProcessRunner()).n_components, *verify_output("/mnt/out"))
"""


@pytest.mark.slow
def test_a_disk_that_is_full_when_the_new_result_stands_stops_nothing(forks: Forks, long_names: Path) -> None:
    """The list of checksums takes more than the old run.json leaves room for."""
    own_mounts()
    done = forks.run(str(long_names), code=FILLED, script="mount -t tmpfs -o size=200m none /mnt")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.fixture(scope="module")
def first(images: Path) -> Path:
    """A finished result by other settings."""
    output = images.parent / "first"
    run(RunConfig(input=str(images), output=str(output), weights="demo", components=2), InProcessRunner())
    return output


@pytest.fixture
def old(first: Path, tmp_path: Path) -> Path:
    """A result that is to stay as it is while a run with other settings fails."""
    return copy_tree(first, tmp_path / "out")


@pytest.fixture(scope="module")
def wanted(images: Path) -> dict[str, object]:
    """The tables of the run that fails, where nothing is in its way."""
    output = images.parent / "in peace"
    settings = {"input": str(images), "output": str(output), "weights": "demo", "components": 3}
    run(RunConfig(**settings, preprocess="crop"), InProcessRunner())
    return tables(output)


LOCAL = ["--runner", "local", "--workers", "1"]
RUNNERS = [
    pytest.param(LOCAL, id="local"),
    pytest.param(["--runner", "spark", "--master", "local[2]"], id="spark", marks=[pytest.mark.spark]),
]


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_workers_that_find_no_room_say_so_at_once(
    runner: list[str], forks: Forks, images: Path, wanted: dict[str, object]
) -> None:
    """Their file system holds the plan, and no shard of it; a run with room goes on where they stopped."""
    own_mounts()
    command = arguments(images, Path("/mnt/out"), "--preprocess", "crop")
    forks.shell("mount -t tmpfs -o size=64k none /mnt")
    try:
        line = only_line(forks.run(*command, *runner))
        assert "not enough space for /mnt/out/_state/shards/" in line
        assert "of 0.1 MB): free some space, then rerun the same command" in line
        forks.shell("mount -o remount,size=200m /mnt")
        again = forks.run(*command, *(runner if runner == LOCAL else []))
        assert again.returncode == 0, again.stderr
        assert tables(forks.place("/mnt/out")) == wanted
    finally:
        forks.shell("umount /mnt")


@pytest.mark.slow
def test_files_that_may_not_grow(forks: Forks, images: Path, old: Path, wanted: dict[str, object]) -> None:
    before = tables(old)
    command = arguments(images, old, "--preprocess", "crop")
    for size in (100, 4096, 30_000, 200_000, 1 << 20, 5_000_000, 8_000_000, 12_000_000):
        if size == 4096:  # as others start it
            limit = lambda most=size: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # noqa: E731
            line = only_line(mission9(*command, preexec_fn=limit))
        else:
            line = only_line(forks.run(*command, limits={"RLIMIT_FSIZE": size}))
        assert "exceeds the file size limit: raise it (ulimit -f)" in line, line
        assert tables(old) == before, size
        assert is_whole(old), size
    assert forks.run(*command).returncode == 0
    assert tables(old) == wanted
    assert is_whole(old)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_no_room_for_temporary_files_is_told_or_not_needed(
    runner: list[str], forks: Forks, images: Path, tmp_path: Path, wanted: dict[str, object]
) -> None:
    """/tmp is full: worker processes need none of it, and Spark gets a folder elsewhere."""
    own_mounts()
    script = "mount -t tmpfs none /mnt; mkdir /mnt/output /mnt/images; "
    script += f"mount --bind {tmp_path} /mnt/output; mount --bind {images} /mnt/images; "
    script += "mount -t tmpfs -o size=16k none /tmp; dd if=/dev/zero of=/tmp/filler bs=1k count=64 || true"
    command = arguments(Path("/mnt/images"), Path("/mnt/output/out"), "--preprocess", "crop", *runner)
    done = forks.run(*command, script=script, cwd="/mnt/output", environment={"TMPDIR": "/tmp"})
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "out") == wanted


@pytest.mark.slow
@pytest.mark.spark
def test_no_room_for_what_spark_keeps_beside(
    forks: Forks, images: Path, tmp_path: Path, wanted: dict[str, object]
) -> None:
    own_mounts()
    command = arguments(images, tmp_path / "out", "--preprocess", "crop")
    script, environment = "mount -t tmpfs -o size=16k none /mnt", {"SPARK_LOCAL_DIRS": "/mnt"}
    done = forks.run(*command, "--runner", "spark", script=script, environment=environment)
    assert done.returncode == 1
    line = [line for line in done.stderr.splitlines() if line.startswith("mission9: ")][-1]  # PySpark says more
    assert line.startswith("mission9: not enough space in /mnt (free: 0.0 of 0.0 MB)"), done.stderr
    again = forks.run(*command)
    assert again.returncode == 0, again.stderr
    assert tables(tmp_path / "out") == wanted


@pytest.mark.slow
def test_a_temporary_folder_that_is_none(forks: Forks, images: Path, tmp_path: Path, wanted: dict[str, object]) -> None:
    command = arguments(images, tmp_path / "out", "--preprocess", "crop", *LOCAL)
    done = forks.run(*command, environment={"TMPDIR": str(tmp_path / "nowhere")})
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "out") == wanted


@pytest.mark.slow
def test_no_room_for_what_worker_processes_share(forks: Forks, images: Path, tmp_path: Path) -> None:
    own_mounts()
    script = "mount -t tmpfs -o size=4k,nr_inodes=2 none /dev/shm; touch /dev/shm/filler"
    command = arguments(images, tmp_path / "out", "--runner", "local", "--workers", "2")
    assert "not enough space in /dev/shm" in only_line(forks.run(*command, script=script))


def test_a_folder_to_stand_in_that_is_gone(images: Path, tmp_path: Path) -> None:
    script = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone"
    environment = {"PYTHONPATH": str(REPOSITORY / "src")}
    line = only_line(in_shell(script, *arguments(images, Path("out")), before=["env"], environment=environment))
    assert "the current folder was deleted" in line


def test_a_folder_to_stand_in_that_is_gone_when_workers_are_started(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code = main(arguments(images, tmp_path / "out", *LOCAL))
    line = only_line(subprocess.CompletedProcess([], code, "", capfd.readouterr().err))
    assert "the current folder was deleted" in line
