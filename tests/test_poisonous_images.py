"""Images that crash their decoder, never come back, or eat memory, under the whole command: each costs itself alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mission9.stages.decoder import TIME_LIMIT
from tests.conftest import REPOSITORY

# Every Python of the run finds it: the decoder itself does as the comment in a file says.
MISBEHAVE = """
import ctypes, os
from PIL import JpegImagePlugin

decode = JpegImagePlugin.JpegImageFile.load


def load(image):
    what = image.info.get("comment")
    if what == b"crash":
        os.kill(os.getpid(), 11)
    if what == b"hang":
        ctypes.PyDLL(None).pause()  # in C, without letting go of the interpreter
    hoard = []
    while what == b"eat":
        hoard.append(bytearray(1 << 24))
    return decode(image)


JpegImagePlugin.JpegImageFile.load = load
"""
REASONS = {"crash": "decoder_crashed", "hang": "timeout", "eat": "out_of_memory"}

RUNNERS = [
    pytest.param(["--runner", "local", "--workers", "2"], id="local"),
    pytest.param(["--master", "local[2]"], id="spark", marks=[pytest.mark.spark]),
]


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_poisonous_image_costs_itself_alone(
    runner: list[str], tree: Path, tmp_path: Path, pictures: list[bytes]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(MISBEHAVE)
    paths = [str(tmp_path), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def run(output: str) -> Path:
        command = ["run", "--input", str(tree), "--output", str(tmp_path / output), "--weights", "demo"]
        command += ["--components", "3", "--max-reject-rate", "0.5", *runner]
        done = subprocess.run(
            [sys.executable, "-m", "mission9", *command], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / output

    in_peace = run("in peace")
    for what in REASONS:
        comment = b"\xff\xfe" + (len(what) + 2).to_bytes(2, "big") + what.encode()
        (tree / "Training" / "a" / f"{what}.jpg").write_bytes(pictures[0][:2] + comment + pictures[0][2:])
    output = run("with them")
    tables = [pq.read_table(folder / "features").sort_by("path") for folder in (output, in_peace)]
    assert tables[0].equals(tables[1])
    rejects = pq.read_table(output / "rejects").to_pylist()
    assert {row["path"]: row["reason"] for row in rejects} == {
        f"Training/a/{what}.jpg": reason for what, reason in REASONS.items()
    }
    seconds = [json.loads((folder / "run.json").read_bytes())["seconds"]["extract"] for folder in (output, in_peace)]
    assert seconds[0] - seconds[1] < 2 * TIME_LIMIT  # one for the image that hangs, and room for a busy machine
