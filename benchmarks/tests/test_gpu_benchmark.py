"""benchmarks/gpu.py on the CPU, and what it says where there is no GPU."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY

from mission9 import devices


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program in this process, which loads torch once for all."""
    from benchmarks import gpu

    said, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", ["gpu.py", *arguments])
        code = gpu.main()
    return subprocess.CompletedProcess(arguments, code, said.getvalue(), errors.getvalue())


@pytest.mark.slow
def test_it_measures_a_cpu(tmp_path: Path) -> None:
    # Float32 alone, since CPUs without the instructions for bfloat16 take half a second an image.
    few = ("--count", "2", "--repeats", "1", "--batch-size", "2", "--batch-sizes", "1", "--precision", "float32")
    done = benchmark("--device", "cpu", *few, "--json", str(tmp_path / "figures.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["precision", "float32"]
    figures = json.loads((tmp_path / "figures.json").read_text())["gpu"]
    assert (figures["machine"]["device"], figures["images"], figures["distinct"]) == ("CPU", 2, 2)
    assert figures["decode"] > 0
    result = figures["precisions"]["float32"]
    assert result["batch_size"] == 2
    assert set(result["model"]) == {"1", "2"}
    assert min(*result["model"].values(), result["end_to_end"], result["of_bound"]) > 0
    fidelity = result["fidelity"]
    assert fidelity["images"] == 2
    assert fidelity["cosine_mean"] >= fidelity["cosine_min"] > 0.999
    assert fidelity["relative_error_max"] < 1e-4


@pytest.mark.slow
def test_images_of_ones_own(tmp_path: Path, tree: Path) -> None:
    few = ("--count", "4", "--repeats", "1", "--batch-size", "4", "--batch-sizes", "4", "--precision", "float32")
    done = benchmark("--device", "cpu", *few, "--images", str(tree / "Test"))
    assert "4 images a pass (3 distinct" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "there is no folder nowhere"),
        (["--weights", "nothing"], "there is no weights file nothing"),
        (["--precision", "float16", "--count", "1"], "torch on cpu computes in float32, bfloat16, not in float16"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: list[str], message: str) -> None:
    done = benchmark("--device", "cpu", "--repeats", "1", *arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not devices.why_no_cuda(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    """As a program of its own, from anywhere."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu.py")]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "there is no GPU to measure" in done.stderr
