"""A folder of images may hold files that are named as modules of Python are: none of them is ever run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# What is loaded by name: all of Python's own that is not built in, and what mission9 and its libraries load.
OWN = sorted(set(sys.stdlib_module_names) - set(sys.builtin_module_names))
OTHERS = ("PIL", "cloudpickle", "loky", "mlflow", "numpy", "openvino", "pandas", "pyarrow", "pyspark", "mission9")
NAMES = (*OWN, *OTHERS, "sitecustomize", "usercustomize")
PROGRAM = Path(sys.executable).parent / "mission9"

Command = Callable[..., str]


@pytest.fixture
def trapped(tree: Path) -> Path:
    """The tree, with files that tell when they are run."""
    for name in NAMES:
        (tree / f"{name}.py").write_text(f"open({str(tree.parent / 'was run')!r}, 'a').write({name!r} + ' ')")
    return tree


@pytest.fixture
def command(trapped: Path, tmp_path: Path) -> Command:
    """Carry out a command of mission9 in the trapped folder, and return what it prints."""

    def command(*words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
        done = subprocess.run(
            [PROGRAM, *words], cwd=trapped, env=environment, capture_output=True, text=True, check=False
        )
        run = tmp_path / "was run"
        assert not run.exists(), run.read_text()
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return command


def run_of(tmp_path: Path, *settings: str) -> list[str]:
    return [
        "run",
        "--input",
        ".",
        "--output",
        str(tmp_path / "out"),
        "--weights",
        "demo",
        "--components",
        "3",
        *settings,
    ]


@pytest.mark.slow
def test_a_run_and_what_is_done_with_its_result_run_none(command: Command, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    command(*run_of(tmp_path, "--runner", "local", "--workers", "2", "--mlflow", "local"))
    assert "is whole" in command("verify", output)
    command("report", output)
    command("evaluate", output)
    command("project", "--model", f"{output}/pca_model", "Test/a/0.jpg")
    command("audit", ".")
    command("estimate", "--input", ".", "--weights", "demo")
    command("pack", "--input", ".", "--output", str(tmp_path / "pack"))


@pytest.mark.slow
@pytest.mark.spark
def test_workers_of_spark_run_none(command: Command, tmp_path: Path) -> None:
    command(*run_of(tmp_path, "--runner", "spark", "--workers", "1"))
