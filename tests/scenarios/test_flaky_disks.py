"""File systems that fail now and then, are slow, or gone, by a library between program and system; and its clock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.models.weights import DEMO_FILE
from tests.conftest import REPOSITORY, InProcessRunner
from tests.support import held_up
from tests.support.finished import copy_tree, write_fruits
from tests.support.forks import Forks
from tests.support.hostile import arguments, is_whole, mission9, only_line, tables

pytestmark = pytest.mark.xdist_group("test_flaky_disks")  # which has one process that forks

LOCAL = ["--runner", "local", "--workers", "1"]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library, made of `faults.c`."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make the library that fails")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = REPOSITORY / "tests" / "support" / "faults.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return str(library)


@pytest.fixture(scope="module")
def forks(faults: str) -> Iterator[Forks]:
    """Forks with the library, which does nothing as long as its settings are not in the environment."""
    with Forks(environment={"LD_PRELOAD": faults}) as started:
        yield started


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of two labels, which no test here changes."""
    root = tmp_path_factory.mktemp("flaky") / "disk" / "images"
    write_fruits(root, varieties=2, training=20, test=10)
    return root


@pytest.fixture(scope="module")
def weights(images: Path) -> Path:
    """Weights on the same file system as all else."""
    file = images.parent / "weights.safetensors"
    shutil.copyfile(REPOSITORY / "src/mission9/data" / DEMO_FILE, file)
    return file


@pytest.fixture
def output(images: Path, tmp_path: Path) -> Path:
    """The place of a result there."""
    return images.parent / tmp_path.name


@pytest.fixture(scope="module")
def in_peace(images: Path) -> Path:
    """A run in peace."""
    output = images.parent.parent / "in peace"
    run(RunConfig(input=str(images), output=str(output), weights="demo", components=3), InProcessRunner())
    return output


@pytest.fixture(scope="module")
def wanted(in_peace: Path) -> dict[str, object]:
    """Its tables."""
    return tables(in_peace)


def preloaded(library: str, disk: Path, **settings: object) -> Mapping[str, str]:
    named = {f"FAULTS_{name.upper()}": str(value) for name, value in settings.items()}
    return {"LD_PRELOAD": library, "FAULTS_BELOW": str(disk)} | named


@pytest.mark.slow
@pytest.mark.parametrize(
    ("percent", "seed", "runner"), [(2, 1, []), (3, 2, []), (5, 3, []), pytest.param(5, 4, LOCAL, id="5-4-local")]
)
def test_what_fails_now_and_then_changes_nothing(
    percent: int,
    seed: int,
    runner: list[str],
    forks: Forks,
    faults: str,
    images: Path,
    output: Path,
    weights: Path,
    wanted: dict[str, object],
) -> None:
    environment = preloaded(faults, images.parent, share=percent * 10_000, seed=seed)
    command = arguments(images, output, *runner, weights=str(weights))
    # With workers as others start it.
    done = mission9(*command, environment=environment) if runner else forks.run(*command, environment=environment)
    assert done.returncode == 0, done.stderr
    assert tables(output) == wanted
    assert is_whole(output)
    again = forks.run(*command, environment=environment)
    assert again.returncode == 0, again.stderr
    assert json.loads((output / "run.json").read_text())["images_inferred"] == 0
    assert tables(output) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("runner", [LOCAL, ["--runner", "spark"]], ids=["local", "spark"])
def test_each_thing_that_is_done_to_each_file_may_fail_once(
    runner: list[str],
    forks: Forks,
    faults: str,
    images: Path,
    output: Path,
    weights: Path,
    wanted: dict[str, object],
    tmp_path: Path,
) -> None:
    environment = preloaded(faults, images.parent, first=1, counted=tmp_path / "counted")
    command = arguments(images, output, *runner, weights=str(weights))
    for inferred in (60, 0):
        done = forks.run(*command, environment=environment)
        assert done.returncode == 0, done.stderr
        assert json.loads((output / "run.json").read_text())["images_inferred"] == inferred
        assert tables(output) == wanted
        assert "no report.html" not in done.stderr
    assert (tmp_path / "counted").stat().st_size > 200
    if runner == LOCAL:  # by whom a result was made makes no difference to those who use it
        for what in ("verify", "report", "evaluate"):
            done = forks.run(what, str(output), environment=environment)
            assert done.returncode == 0, done.stderr
    assert not [path for path in output.rglob(".*") if path.is_file()]


@pytest.mark.slow
def test_a_slow_file_system_changes_nothing_but_the_time(
    forks: Forks, faults: str, images: Path, output: Path, weights: Path, wanted: dict[str, object]
) -> None:
    command = arguments(images, output, weights=str(weights))
    done = forks.run(*command, environment=preloaded(faults, images.parent, slow=10_000))
    assert done.returncode == 0, done.stderr
    assert tables(output) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "code", "message"),
    [
        ("images", 2, "cannot be read: Input/output error"),
        ("out", 2, "cannot be written: Input/output error"),
        ("weights.safetensors", 2, "cannot be read: Input/output error"),
    ],
)
def test_what_is_gone_is_told_soon(
    part: str, code: int, message: str, forks: Forks, faults: str, images: Path, weights: Path, tmp_path: Path
) -> None:
    """Soon: after few tries, between which seconds go by."""
    counted = tmp_path / "counted"
    environment = preloaded(faults, images.parent / part, share=1_000_000, counted=counted)
    command = arguments(images, images.parent / "out", *LOCAL, weights=str(weights))
    assert message in only_line(forks.run(*command, environment=environment), code)
    assert counted.stat().st_size <= 10


# From shard 2 on the part of the disk is gone.
SWITCHED = """
    def __call__(self, number):
        if number == 2:
            Path({switch!r}).touch()
        return super().__call__(number)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "runner", "code", "message"),
    [
        ("images", [], 3, "unreadable"),
        ("out", [], 1, "repeated file system errors (Input/output error). Fix the file system"),
        ("out", LOCAL, 1, "repeated file system errors (Input/output error). Fix the file system"),
    ],
)
def test_what_goes_away_in_the_middle_is_told_soon_and_the_same_command_goes_on(
    part: str,
    runner: list[str],
    code: int,
    message: str,
    forks: Forks,
    faults: str,
    images: Path,
    output: Path,
    tmp_path: Path,
) -> None:
    """Soon: after few tries, of which not each is followed by others, between which seconds go by."""
    counted, switch, gone = tmp_path / "counted", tmp_path / "switch", images if part == "images" else output
    environment = preloaded(faults, gone, share=0, switch=switch, counted=counted)
    command = held_up.command(SWITCHED.format(switch=str(switch)), *arguments(images, output, *runner), shard_images=8)
    told = forks.run(*command[3:], code=command[2], environment=environment)
    assert message in only_line(told, code)
    assert counted.stat().st_size <= (3 * 46 if part == "images" else 60)
    again = run(RunConfig(input=str(images), output=str(output), weights="demo", components=3), InProcessRunner())
    assert again.images_inferred == 46  # of two shards there are features
    assert (again.featured, again.rejected) == (60, 0)
    assert is_whole(output)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "runner"), [(400 * 86_400, LOCAL), (-400 * 86_400, [])])
def test_the_clock_says_nothing_of_what_is_done(
    seconds: int,
    runner: list[str],
    forks: Forks,
    faults: str,
    images: Path,
    in_peace: Path,
    wanted: dict[str, object],
    tmp_path: Path,
) -> None:
    """A run by another time of day, on files that are from a future: known is what is as it was."""
    there, output = copy_tree(images, tmp_path / "images"), copy_tree(in_peace, tmp_path / "out")
    first, *_ = sorted(there.rglob("*.jpg"))
    os.utime(first, (time.time() + 1e8, time.time() + 1e8))
    run(RunConfig(input=str(there), output=str(output), weights="demo", components=3), InProcessRunner())
    environment = {"LD_PRELOAD": faults, "CLOCK_BACK": str(seconds)}
    told = forks.run(code="import time; print(int(time.time()))", environment=environment)
    assert abs(time.time() - int(told.stdout) - seconds) < 3600
    done = forks.run(*arguments(there, output), environment=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "run.json").read_text())["images_inferred"] == 0
    assert tables(output) == wanted
    assert forks.run("verify", str(output), environment=environment).returncode == 0
    first.write_bytes(first.read_bytes())  # now older than it was
    assert forks.run(*arguments(there, output, *runner), environment=environment).returncode == 0
    assert json.loads((output / "run.json").read_text())["images_inferred"] == 1
    assert tables(output) == wanted
