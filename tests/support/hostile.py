"""Ways to run the real program where disks are small, forbidden or failing; each says why where it cannot be had."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mission9.cli import main

PROGRAM = [sys.executable, "-m", "mission9"]


def own_mounts() -> tuple[str, ...]:
    """The command that gives another one mounts of its own; skips the test where that is not allowed."""
    if not (command := mounts_if_any()):
        pytest.skip("no mounts of one's own here (unshare --mount)")
    return command


@functools.cache
def mounts_if_any() -> tuple[str, ...]:
    """The same command; nothing where that is not allowed."""
    for command in (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount")):
        probe = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return command
    return ()


@functools.cache
def without_power() -> tuple[str, ...]:
    """The command that takes from root what lets it pass over permissions; nothing for other users."""
    if os.geteuid():
        return ()
    command = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all")
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("root cannot lay down its powers here (setpriv)")
    return command


def arguments(images: Path, output: Path, *more: str, weights: str = "demo") -> list[str]:
    """A small run as a command line."""
    return ["run", "--input", str(images), "--output", str(output), "--weights", weights, "--components", "3", *more]


def mission9(
    *command: str, before: Sequence[str] = (), environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """The program, as others start it."""
    env = os.environ | dict(environment or {})
    return subprocess.run(
        [*before, *PROGRAM, *command], env=env, capture_output=True, text=True, check=False, timeout=300, **options
    )


def in_shell(script: str, *command: str, before: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """The program in a shell that has prepared the place."""
    return mission9(*command, before=[*before, "sh", "-ec", f'{script}\nexec "$@"', "sh"], **options)


def only_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line with which a command that failed says why, without a stack."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("mission9: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def tables(output: Path) -> dict[str, Any]:
    """Everything readers see of a result but its times, as values."""
    found: dict[str, Any] = {"features": pq.read_table(output / "features").sort_by("path").to_pylist()}
    found["rejects"] = pq.read_table(output / "rejects").sort_by("path").to_pylist()
    for file in sorted(output.glob("*_csv/*.csv")):
        found[file.parent.name] = pd.read_csv(file, dtype={"label": str}).round(3).to_dict("records")
    return found


def is_whole(output: Path) -> bool:
    """Return True if `mission9 verify` finds no problem."""
    return main(["verify", str(output)]) == 0
