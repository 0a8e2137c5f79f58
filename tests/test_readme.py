"""The README's commands and examples, run in order as a reader would, in one folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mission9.config import RunConfig
from mission9.errors import REASONS
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line]


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    subprocess.run([*shlex.split(command), "-n"], cwd=REPOSITORY, check=True, capture_output=True)


@pytest.mark.spark
@pytest.mark.slow
def test_commands_and_examples_run(tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "mission9"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "SPARK_DRIVER_MEMORY": "2g"}

    def succeeds(command: list[str]) -> None:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"

    for line in commands():
        program, *arguments = shlex.split(line)
        if program != "make":
            assert program == "mission9"
            succeeds([str(tool), *arguments])
    succeeds([sys.executable, "-c", "\n".join(blocks("python"))])
    assert (tmp_path / "data/notebook/training_pca_csv/part-00000.csv").is_file()


def test_the_table_of_settings_tells_the_defaults() -> None:
    rows = re.findall(r"^\| (`--[^|]*) \| [^|]* \| ([^|]*) \|$", README, flags=re.MULTILINE)
    told = {name: text for names, text in rows for name in re.findall(r"`--([a-z-]+)`", names)}
    defaults = RunConfig()
    for name, text in told.items():
        value = getattr(defaults, name.replace("-", "_"))
        if value is not None:
            assert f"`{value}`" in text, name


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_every_reason_is_explained() -> None:
    page = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, flags=re.MULTILINE)) == set(REASONS)
