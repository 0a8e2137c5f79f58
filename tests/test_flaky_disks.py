"""File systems that fail now and then, are slow, or gone, by a library between program and system; and its clock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.network.weights import DEMO_FILE
from tests.conftest import REPOSITORY, InProcessRunner
from tests.hostile import arguments, is_whole, mission9, only_line, tables

LOCAL = ["--runner", "local", "--workers", "2"]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library, made of `faults.c`."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make the library that fails")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return str(library)


@pytest.fixture
def images(sample: Path, tmp_path: Path) -> Path:
    """Sixty images of the sample, two labels."""
    root = tmp_path / "disk" / "images"
    for split, count in (("Training", 20), ("Test", 10)):
        for label in sorted((sample / split).iterdir())[:2]:
            (root / split / label.name).mkdir(parents=True)
            for number in range(count):
                files = sorted(label.iterdir())
                data = files[number % len(files)].read_bytes()
                (root / split / label.name / f"{number}.jpg").write_bytes(data)
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights on the same file system as all else."""
    file = tmp_path / "disk" / "weights.safetensors"
    file.parent.mkdir(exist_ok=True)
    shutil.copyfile(REPOSITORY / "src/mission9/data" / DEMO_FILE, file)
    return file


@pytest.fixture
def wanted(images: Path, tmp_path: Path) -> dict[str, object]:
    """The tables of a run in peace."""
    output = tmp_path / "in peace"
    run(RunConfig(input=str(images), output=str(output), weights="demo", components=3), InProcessRunner())
    return tables(output)


def preloaded(library: str, disk: Path, **settings: object) -> Mapping[str, str]:
    named = {f"FAULTS_{name.upper()}": str(value) for name, value in settings.items()}
    return {"LD_PRELOAD": library, "FAULTS_BELOW": str(disk)} | named


@pytest.mark.slow
@pytest.mark.parametrize(("percent", "seed"), [(2, 1), (3, 2), (5, 3), (5, 4)])
def test_what_fails_now_and_then_changes_nothing(
    percent: int, seed: int, faults: str, images: Path, weights: Path, wanted: dict[str, object]
) -> None:
    output = images.parent / "out"
    environment = preloaded(faults, images.parent, share=percent * 10_000, seed=seed)
    command = arguments(images, output, *LOCAL, weights=str(weights))
    done = mission9(*command, environment=environment)
    assert done.returncode == 0, done.stderr
    assert tables(output) == wanted
    assert is_whole(output)
    again = mission9(*command, environment=environment)
    assert again.returncode == 0, again.stderr
    assert json.loads((output / "run.json").read_text())["images_inferred"] == 0
    assert tables(output) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "spark"])
def test_each_thing_that_is_done_to_each_file_may_fail_once(
    runner: str, faults: str, images: Path, weights: Path, wanted: dict[str, object]
) -> None:
    output, environment = images.parent / "out", preloaded(faults, images.parent, first=1)
    command = arguments(images, output, "--runner", runner, "--workers", "2", weights=str(weights))
    for inferred in (60, 0):
        done = mission9(*command, environment=environment)
        assert done.returncode == 0, done.stderr
        assert json.loads((output / "run.json").read_text())["images_inferred"] == inferred
        assert tables(output) == wanted
        assert "no report.html" not in done.stderr
    for what in ("verify", "report", "evaluate"):
        done = mission9(what, str(output), environment=environment)
        assert done.returncode == 0, done.stderr
    assert not [path for path in output.rglob(".*") if path.is_file()]


@pytest.mark.slow
def test_a_slow_file_system_changes_nothing_but_the_time(
    faults: str, images: Path, weights: Path, wanted: dict[str, object]
) -> None:
    output = images.parent / "out"
    command = arguments(images, output, *LOCAL, weights=str(weights))
    done = mission9(*command, environment=preloaded(faults, images.parent, slow=10_000))
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
    part: str, code: int, message: str, faults: str, images: Path, weights: Path
) -> None:
    environment = preloaded(faults, images.parent / part, share=1_000_000)
    command = arguments(images, images.parent / "out", *LOCAL, weights=str(weights))
    start = time.monotonic()
    assert message in only_line(mission9(*command, environment=environment), code)
    assert time.monotonic() - start < 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "code", "message"),
    [
        ("images", 3, "unreadable"),
        ("out", 1, "fails again and again (Input/output error): see to it"),
    ],
)
def test_what_goes_away_in_the_middle_is_told_soon_and_the_same_command_goes_on(
    part: str, code: int, message: str, faults: str, sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    shutil.copytree(sample, tmp_path / "disk" / "images")
    output, switch = tmp_path / "disk" / "out", tmp_path / "switch"
    environment = os.environ | preloaded(faults, tmp_path / "disk" / part, share=0, switch=switch, slow=3000)
    command = ["-m", "mission9", *arguments(tmp_path / "disk" / "images", output, *LOCAL)]
    with subprocess.Popen(
        [sys.executable, *command], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        while not list(output.glob("_state/shards/*/*.features.parquet")):
            assert process.poll() is None
            time.sleep(0.01)
        switch.touch()
        start = time.monotonic()
        _, told = process.communicate(timeout=120)
    assert time.monotonic() - start < 60
    assert message in only_line(subprocess.CompletedProcess([], process.returncode, "", told), code)
    again = run(RunConfig(input=str(tmp_path / "disk" / "images"), output=str(output), weights="demo", components=3))
    assert (again.featured, again.rejected) == (640, 0)
    assert is_whole(output)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [400 * 86_400, -400 * 86_400])
def test_the_clock_says_nothing_of_what_is_done(
    seconds: int, faults: str, images: Path, wanted: dict[str, object]
) -> None:
    """A run by another time of day, on files that are from a future: known is what is as it was."""
    output = images.parent / "out"
    first, *_ = sorted(images.rglob("*.jpg"))
    os.utime(first, (time.time() + 1e8, time.time() + 1e8))
    run(RunConfig(input=str(images), output=str(output), weights="demo", components=3), InProcessRunner())
    environment = {"LD_PRELOAD": faults, "CLOCK_BACK": str(seconds)}
    script = ["-c", "import time; print(int(time.time()))"]
    told = subprocess.run(
        [sys.executable, *script], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert abs(time.time() - int(told.stdout) - seconds) < 3600
    done = mission9(*arguments(images, output, *LOCAL), environment=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((output / "run.json").read_text())["images_inferred"] == 0
    assert tables(output) == wanted
    assert mission9("verify", str(output), environment=environment).returncode == 0
    first.write_bytes(first.read_bytes())  # now older than it was
    assert mission9(*arguments(images, output, *LOCAL), environment=environment).returncode == 0
    assert json.loads((output / "run.json").read_text())["images_inferred"] == 1
    assert tables(output) == wanted
