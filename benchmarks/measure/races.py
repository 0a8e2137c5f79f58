"""Runs that meet in one output folder: several writers, and readers beside a writer."""

from __future__ import annotations

import csv
import json
import re
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from benchmarks.measure.child import clean_environment
from tests.support.readers import read_result

from mission9 import PCAModel
from mission9.output.layout import MODEL_FOLDER, scores_folder
from mission9.results.verify import verify_output

STARTS = 5
LIMIT = 300  # seconds for a run
_REFUSAL = re.compile(r'another run is writing .*"host": "(.+)", "pid": (\d+), "since": "\d{4}-\d\d-\d\d ')


@dataclass(frozen=True, kw_only=True)
class Race:
    """Exit codes of runs started at once, and the problems found."""

    codes: list[int]
    problems: list[str]


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Results that a reader read during rewrites, of which `mixed`; and those mixed at one look at `run.json` alone."""

    rewrites: int
    reads: int
    mixed: int
    changed_meanwhile: int
    mixed_at_one_look: int


def race_of_starts(command: Sequence[str]) -> Race:
    """Start a command, whose last word but for options is the output, several times at once."""
    output = command[command.index("--output") + 1]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    runs = [
        subprocess.Popen(command, env=clean_environment(), text=True, **pipes)  # type: ignore[call-overload] # noqa: S603
        for _ in range(STARTS)
    ]
    told = [run.communicate(timeout=LIMIT)[1] for run in runs]
    winners = [run.pid for run in runs if run.returncode == 0]
    problems = [] if len(winners) == 1 else [f"{len(winners)} of {STARTS} won"]
    for run, text in zip(runs, told, strict=True):
        named = _REFUSAL.search(text)
        if run.returncode and (
            run.returncode != 2 or named is None or (named[1], int(named[2])) != (socket.gethostname(), *winners[:1])
        ):
            problems.append(f"exit {run.returncode}: {text.strip().splitlines()[-1:]}")
    return Race(codes=[run.returncode for run in runs], problems=[*problems, *verify_output(output)])


def read_during_rewrites(commands: Sequence[Sequence[str]], output: Path) -> Readings:
    """Read a result over and over while commands, each with other components, write it anew; the first makes it."""
    reads = mixed = looks = mixed_at_one_look = 0

    def look(folder: Path) -> set[int]:
        nonlocal looks, mixed_at_one_look
        looks += 1
        try:
            found = components(folder)
        except Exception:
            mixed_at_one_look += 1
            raise
        mixed_at_one_look += len(found) > 1
        return found

    subprocess.run(commands[0], env=clean_environment(), check=True, capture_output=True)  # noqa: S603
    for command in commands[1:]:
        nothing = subprocess.DEVNULL
        with subprocess.Popen(command, env=clean_environment(), stdout=nothing, stderr=nothing) as run:  # noqa: S603
            while run.poll() is None:
                report, found = read_result(output, look)
                reads += 1
                mixed += found != {json.loads(report)["n_components"]}
        if run.returncode:
            raise subprocess.CalledProcessError(run.returncode, command)
    return Readings(
        rewrites=len(commands) - 1,
        reads=reads,
        mixed=mixed,
        changed_meanwhile=looks - reads,
        mixed_at_one_look=mixed_at_one_look,
    )


def components(folder: Path) -> set[int]:
    """By how many components the tables of a result are, each read on its own; one number, if they are of one."""
    found = {PCAModel.load(folder / MODEL_FOLDER).n_components_}
    for split in ("Training", "Test"):
        with (folder / f"{scores_folder(split)}_csv" / "part-00000.csv").open(newline="", encoding="utf-8") as lines:
            found.add(len(next(csv.reader(lines))) - 2)
        files = sorted((folder / scores_folder(split)).glob("*/*.parquet"))
        if not files:
            raise FileNotFoundError(f"{folder / scores_folder(split)} holds no tables")
        found |= {pq.read_schema(file).field("pca").type.list_size for file in files}
    return found
