"""Disks that are full: one line that says which, the old result as it was, and a rerun that ends right."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from tests.conftest import InProcessRunner
from tests.hostile import arguments, in_shell, is_whole, mission9, only_line, own_mounts, tables

# In a small file system of its own: an old result, then for each size a run that finds so many kB free, the state of
# the old result after that, and the same run with room. Prints a line of JSON for each size.
SWEEP = """
import json, os, shutil, sys
from pathlib import Path
from mission9 import RunConfig, run
from mission9.errors import StorageError
from mission9.runners import InProcessRunner
from mission9.stages.verify_output import verify_output
from tests.hostile import tables

images, place, fresh, *sizes = sys.argv[1:]
place = Path(place)
settings = {"input": images, "weights": "demo"}
old = RunConfig(**settings, output=str(place / "old"), components=2)
run(old, InProcessRunner())
before = tables(place / "old")
wanted = tables(Path(fresh))


def attempt(size: int) -> bool:
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
    run(config, InProcessRunner())
    again = tables(place / "out") == wanted
    problems += verify_output(config.output)
    print(json.dumps({"size": size, "told": told, "after": after, "again": again, "problems": problems}), flush=True)
    shutil.rmtree(place / "out")
    return not told


enough = {int(size): attempt(int(size)) for size in sizes}
low, high = max(n for n in enough if not enough[n]), min(n for n in enough if enough[n])
while high - low > 4:  # to the block: what runs out last is what is written when all else is done
    middle = (low + high) // 8 * 4
    low, high = (low, middle) if attempt(middle) else (middle, high)
for blocks in (2, 3, 4):
    attempt(high - 4 * blocks)
"""


@pytest.mark.slow
def test_at_every_size_the_old_result_stays_and_a_run_with_room_ends_right(
    tree: Path, tmp_path: Path, pictures: list[bytes]
) -> None:
    for n in range(30):  # so many that the list of checksums takes more than a block
        (tree / f"Training/label {n}").mkdir()
        (tree / f"Training/label {n}/0.jpg").write_bytes(pictures[n % 10])
    fresh = RunConfig(input=str(tree), output=str(tmp_path / "fresh"), weights="demo", components=3, preprocess="crop")
    run(fresh, InProcessRunner())
    needed = sum(file.stat().st_size for file in Path(fresh.output).rglob("*") if file.is_file()) // 1024
    # Block by block where little is written, then the large files.
    sizes = [0, 4, 8, 12, 20, 40, 60, 80, 100, 140, 200, *range(300, needed, needed // 6), needed + 4000]
    script = f"mount -t tmpfs -o size={4 * needed + 100_000}k none /mnt"
    command = [*own_mounts(), "sh", "-ec", f'{script}\nexec "$@"', "sh", sys.executable, "-c", SWEEP]
    done = subprocess.run(
        [*command, str(tree), "/mnt", fresh.output, *map(str, sizes)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) > 20
    for at in found:
        assert at["after"], at
        assert at["again"], at
        assert at["problems"] == [], at
        assert not at["told"] or "there is not enough room" in at["told"], at
    assert found[0]["told"]
    assert "Exception ignored" not in done.stderr


# The disk becomes full at the moment from which on the new result stands, and its last small files are to be written.
FILLED = """
import os, shutil, sys
from mission9 import RunConfig, run
from mission9.output.folder import Output
from mission9.runners import InProcessRunner
from mission9.stages.verify_output import verify_output

complete = Output.complete


def on_a_full_disk(self):
    with open("/mnt/filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage("/mnt").free)
    complete(self)


settings = {"input": sys.argv[1], "weights": "demo", "output": "/mnt/out"}
run(RunConfig(**settings, components=2), InProcessRunner())
Output.complete = on_a_full_disk
print(run(RunConfig(**settings, components=3), InProcessRunner()).n_components, *verify_output("/mnt/out"))
"""


@pytest.mark.slow
def test_a_disk_that_is_full_when_the_new_result_stands_stops_nothing(tree: Path, pictures: list[bytes]) -> None:
    for n in range(200):  # the list of checksums takes more than the old run.json leaves room for
        (tree / f"Training/label {n}").mkdir()
        (tree / f"Training/label {n}/0.jpg").write_bytes(pictures[0])
    command = [*own_mounts(), "sh", "-ec", 'mount -t tmpfs -o size=200m none /mnt\nexec "$@"', "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", FILLED, str(tree)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.fixture
def old(tree: Path, tmp_path: Path) -> Path:
    """A result that is to stay as it is while a run with other settings fails."""
    output = tmp_path / "out"
    run(RunConfig(input=str(tree), output=str(output), weights="demo", components=2), InProcessRunner())
    return output


@pytest.fixture
def wanted(tree: Path, tmp_path: Path) -> dict[str, object]:
    """The tables of the run that fails, where nothing is in its way."""
    output = tmp_path / "in peace"
    settings = {"input": str(tree), "output": str(output), "weights": "demo", "components": 3}
    run(RunConfig(**settings, preprocess="crop"), InProcessRunner())
    return tables(output)


RUNNERS = [
    pytest.param(["--runner", "local", "--workers", "2"], id="local"),
    pytest.param(["--runner", "spark", "--master", "local[2]"], id="spark", marks=[pytest.mark.spark]),
]


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_workers_that_find_no_room_say_so_at_once(
    runner: list[str], tree: Path, tmp_path: Path, wanted: dict[str, object]
) -> None:
    """Their file system holds the plan, and no shard of it."""
    script = "mount -t tmpfs -o size=64k none /mnt"
    command = arguments(tree, Path("/mnt/out"), "--preprocess", "crop", *runner)
    line = only_line(in_shell(script, *command, before=own_mounts()))
    assert "there is not enough room for /mnt/out/_state/shards/" in line
    assert "of 0.1 MB): make room, then give the same command again" in line
    again = mission9(*arguments(tree, tmp_path / "out", "--preprocess", "crop", *runner))
    assert again.returncode == 0, again.stderr
    assert tables(tmp_path / "out") == wanted


@pytest.mark.slow
def test_files_that_may_not_grow(tree: Path, old: Path, wanted: dict[str, object]) -> None:
    before = tables(old)
    command = arguments(tree, old, "--preprocess", "crop")
    for size in (100, 4096, 30_000, 200_000, 1 << 20, 5_000_000, 8_000_000, 12_000_000):
        limit = lambda most=size: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # noqa: E731
        line = only_line(mission9(*command, preexec_fn=limit))
        assert "may not become as large as it must: raise the limit on files (ulimit -f)" in line, line
        assert tables(old) == before
        assert is_whole(old)
    assert mission9(*command).returncode == 0
    assert tables(old) == wanted
    assert is_whole(old)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_no_room_for_temporary_files_is_told_or_not_needed(
    runner: list[str], tree: Path, tmp_path: Path, wanted: dict[str, object]
) -> None:
    """/tmp is full: worker processes need none of it, and Spark gets a folder elsewhere."""
    output = tmp_path / "out"
    script = (
        f"mkdir /mnt/keep; mount --bind {tmp_path} /mnt/keep; mount -t tmpfs -o size=16k none /tmp; "
        f"mkdir -p {tmp_path}; mount --bind /mnt/keep {tmp_path}; dd if=/dev/zero of=/tmp/filler bs=1k count=64 || true"
    )
    script = f"mount -t tmpfs none /mnt; {script}; cd {tmp_path}"
    command = arguments(tree, output, "--preprocess", "crop", *runner)
    done = in_shell(script, *command, before=own_mounts())
    assert done.returncode == 0, done.stderr
    assert tables(output) == wanted


@pytest.mark.slow
@pytest.mark.spark
def test_no_room_for_what_spark_keeps_beside(tree: Path, tmp_path: Path, wanted: dict[str, object]) -> None:
    command = arguments(tree, tmp_path / "out", "--preprocess", "crop", "--runner", "spark")
    script = "mount -t tmpfs -o size=16k none /mnt"
    done = in_shell(script, *command, before=own_mounts(), environment={"SPARK_LOCAL_DIRS": "/mnt"})
    assert done.returncode == 1
    line = [line for line in done.stderr.splitlines() if line.startswith("mission9: ")][-1]  # PySpark says more
    assert line.startswith("mission9: there is not enough room in /mnt (free: 0.0 of 0.0 MB)"), done.stderr
    again = mission9(*command)
    assert again.returncode == 0, again.stderr
    assert tables(tmp_path / "out") == wanted


@pytest.mark.slow
def test_a_temporary_folder_that_is_none(tree: Path, tmp_path: Path, wanted: dict[str, object]) -> None:
    command = arguments(tree, tmp_path / "out", "--preprocess", "crop", "--runner", "local", "--workers", "2")
    done = mission9(*command, environment={"TMPDIR": str(tmp_path / "nowhere")})
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "out") == wanted


@pytest.mark.slow
def test_no_room_for_what_worker_processes_share(tree: Path, tmp_path: Path) -> None:
    script = "mount -t tmpfs -o size=4k,nr_inodes=2 none /dev/shm; touch /dev/shm/filler"
    command = arguments(tree, tmp_path / "out", "--runner", "local", "--workers", "2")
    assert "not enough room in /dev/shm" in only_line(in_shell(script, *command, before=own_mounts()))


@pytest.mark.parametrize("runner", [[], ["--runner", "local", "--workers", "2"]], ids=["auto", "local"])
def test_a_folder_to_stand_in_that_is_gone(runner: list[str], tree: Path, tmp_path: Path) -> None:
    script = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone"
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent / "src")}
    output = tmp_path / "out" if runner else Path("out")
    line = only_line(in_shell(script, *arguments(tree, output, *runner), before=["env"], environment=environment))
    assert "the folder that this command was started in is gone" in line
