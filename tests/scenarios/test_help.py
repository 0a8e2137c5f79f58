"""The program's own help for a newcomer: its text, its examples, and shell completion."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mission9.cli import app
from mission9.config import RunConfig

EXAMPLES = [
    line for block in re.findall(r"```bash\n(.*?)```", app.generate_docs(), re.DOTALL) for line in block.splitlines()
]
COMMANDS = sorted(name for name in app if not name.startswith("-"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_commands(example: str) -> None:
    program, *words = shlex.split(example)
    assert program == "mission9"
    app.parse_args(words, exit_on_error=False, print_error=False)


def test_each_command_has_an_example() -> None:
    assert sorted({example.split()[1] for example in EXAMPLES}) == COMMANDS


def test_the_settings_of_a_run_are_in_sections_with_their_names_in_the_environment() -> None:
    command = [sys.executable, "-m", "mission9", "run", "--help"]
    text = subprocess.run(
        command, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, check=True
    ).stdout
    assert "Images and results" in text
    assert "─ Parameters ─" not in text  # where a setting without a section would be
    for name, field in RunConfig.model_fields.items():
        option = re.escape("--" + name.replace("_", "-"))
        variable = field.validation_alias or f"MISSION9_{name.upper()}"
        assert re.search(rf"{option} [^\n]*(\n│ {{20}}[^\n]*)*\[env: {variable}\]", text), name


def test_bash_completes_commands_options_and_choices(tmp_path: Path) -> None:
    script = tmp_path / "mission9.bash"
    command = [sys.executable, "-m", "mission9", "--install-completion", "--shell", "bash", "--output", str(script)]
    subprocess.run(command, env=os.environ | {"HOME": str(tmp_path)}, check=True, capture_output=True)
    assert str(script) in (tmp_path / ".bashrc").read_text()

    def completed(*words: str) -> list[str]:
        lines = f". {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _mission9"
        lines += '; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", lines], check=True, capture_output=True, text=True)
        return done.stdout.split()

    assert completed("mission9", "ev") == ["evaluate"]
    assert completed("mission9", "run", "--max-") == ["--max-reject-rate", "--max-pixels", "--max-bytes"]
    assert completed("mission9", "run", "--preprocess", "''") == ["stretch", "crop"]


def test_an_unknown_shell_is_told_in_a_line(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [sys.executable, "-m", "mission9", "--install-completion", "--shell", "tcsh"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "choose from" in done.stderr.lower()
