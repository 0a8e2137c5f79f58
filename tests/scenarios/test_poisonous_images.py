"""Images that crash their decoder, never come back, or eat memory, under the whole command: each costs itself alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mission9 import RunConfig, run
from tests.conftest import REPOSITORY, InProcessRunner
from tests.support.finished import write_tree
from tests.support.forks import Forks

pytestmark = pytest.mark.xdist_group("test_poisonous_images")  # which has one process that forks

# Every Python of the run finds it: the decoder itself does as the comment in a file says, and tells of it.
MISBEHAVE = """
import ctypes, os
import simplejpeg

decode = simplejpeg.decode_jpeg


def misbehaving(data, *more, **options):
    what = next((what for what in (b"crash", b"hang", b"eat") if what in bytes(data[:64])), None)
    if what in (b"crash", b"hang", b"eat"):
        told = os.open(os.environ["MISBEHAVED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(told, what + b" ")
        os.close(told)
    if what == b"crash":
        os.kill(os.getpid(), 11)
    if what == b"hang":
        ctypes.PyDLL(None).pause()  # in C, without letting go of the interpreter
    hoard = []
    while what == b"eat":
        hoard.append(bytearray(1 << 24))
    return decode(data, *more, **options)


simplejpeg.decode_jpeg = misbehaving
"""
REASONS = {"crash": "decoder_crashed", "hang": "timeout", "eat": "out_of_memory"}
MAX_PIXELS = 5_000_000  # by which goes how much memory an image may have

RUNNERS = [
    pytest.param(["--runner", "local", "--workers", "1"], id="local"),
    pytest.param(["--runner", "spark", "--master", "local[1]"], id="spark", marks=[pytest.mark.spark]),
]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as started:
        yield started


@pytest.fixture(scope="module")
def in_peace(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """The tree in `images`, and the result of a run of it in `out`."""
    folder = tmp_path_factory.mktemp("peace")
    settings = {"input": str(write_tree(folder / "images", pictures)), "output": str(folder / "out")}
    run(RunConfig(**settings, weights="demo", components=3, max_pixels=MAX_PIXELS), InProcessRunner())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_poisonous_image_costs_itself_alone(
    runner: list[str], forks: Forks, in_peace: Path, tree: Path, tmp_path: Path, pictures: list[bytes]
) -> None:
    for what in REASONS:
        comment = b"\xff\xfe" + (len(what) + 2).to_bytes(2, "big") + what.encode()
        (tree / "Training" / "a" / f"{what}.jpg").write_bytes(pictures[0][:2] + comment + pictures[0][2:])
    (tmp_path / "sitecustomize.py").write_text(MISBEHAVE)
    paths = [str(tmp_path), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "MISBEHAVED": str(tmp_path / "misbehaved")}
    command = ["run", "--input", str(tree), "--output", str(tmp_path / "out"), "--weights", "demo"]
    command += ["--components", "3", "--max-reject-rate", "0.5", "--max-pixels", str(MAX_PIXELS), "--no-report"]
    done = forks.run(*command, *runner, environment=environment)
    assert done.returncode == 0, done.stderr
    tables = [pq.read_table(folder / "out" / "features").sort_by("path") for folder in (tmp_path, in_peace)]
    assert tables[0].equals(tables[1])
    rejects = pq.read_table(tmp_path / "out" / "rejects").to_pylist()
    assert {row["path"]: row["reason"] for row in rejects} == {
        f"Training/a/{what}.jpg": reason for what, reason in REASONS.items()
    }
    tries = Counter((tmp_path / "misbehaved").read_text().split())
    assert tries["hang"] in (1, 2)  # of a time limit each; twice where the machine stood still meanwhile
    assert tries["crash"] == 2
    assert tries["eat"] in (1, 2)  # and once more, as it was in hand together with the one that hangs


def test_what_decodes_loads_for_its_first_image_nothing_that_takes_its_time() -> None:
    """On a busy machine all images would be rejected, each after its time."""
    code = (
        "import sys; from mission9.datasets.demo import VARIETIES, draw, jpeg;"
        "from mission9.decoding import worker; from mission9.decoding.decode import decode_image;"
        "picture = jpeg(draw(VARIETIES[0], stream=0, number=0)); before = set(sys.modules);"
        "worker.to_input(decode_image(picture, max_pixels=10**6), 'stretch'); print(*set(sys.modules) - before)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len(loaded) < 30, loaded
