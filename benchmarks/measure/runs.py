"""One run of `mission9 run`, or of a program that others write for the same job: timed and checked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure.check import Check, check_ours, check_peer
from benchmarks.measure.child import SAMPLING, ChildFailed, Done, run_command
from benchmarks.measure.memory import Memory
from benchmarks.measure.reference import Reference


@dataclass(frozen=True, kw_only=True)
class Run:
    """One program on one tree of images.

    `wall` is measured around its process, `seconds` by the program itself; `extraction` is images a second of the part
    from images to features, `whole` of the whole process.
    """

    name: str
    images: int
    command: str
    wall: float
    seconds: dict[str, float]
    extraction: float
    whole: float
    memory: Memory
    check: Check
    fidelity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Job:
    """The work of a program: so many images in `tree`, into the folder `output`."""

    tree: Path
    images: int
    weights: str
    output: Path
    reference: Reference


def run_ours(name: str, options: list[str], job: Job) -> Run:
    """`mission9 run` with `options`.

    Raises:
        ChildFailed: saying what it said.
    """
    done, report = mission9_run([*options, "--weights", job.weights], job.tree, job.output)
    if "int8" in options and not report.get("fidelity"):
        raise ChildFailed("its run.json tells no fidelity, so whether it computed in int8 is not known")
    check = check_ours(job.output, job.images, job.reference)
    command = " ".join(["mission9 run", *options])
    return _run(name, job, command, done, report["seconds"], check, report.get("fidelity") or {})


def mission9_run(
    options: Sequence[str],
    images: Path | str,
    output: Path,
    *,
    sampling: float = SAMPLING,
    environment: Mapping[str, str] | None = None,
    temporary: Path | None = None,
) -> tuple[Done, dict[str, Any]]:
    """The process, and its run.json.

    Raises:
        ChildFailed: saying what it said.
    """
    command = [sys.executable, "-m", "mission9", "run", "--input", str(images), "--output", str(output), *options]
    done = run_command(command, sampling=sampling, environment=environment, temporary=temporary)
    if done.failure:
        raise ChildFailed(done.failure)
    report: dict[str, Any] = json.loads((output / "run.json").read_bytes())
    return done, report


def whole_run(options: Sequence[str], tree: Path, output: Path, *, sampling: float = SAMPLING) -> dict[str, Any]:
    """The figures of `mission9 run`, whose correctness is not checked, but for the number of rows.

    Raises:
        ChildFailed: saying what it said.
    """
    done, report = mission9_run(options, tree, output, sampling=sampling)
    splits = report["splits"].values()
    images = sum(split["listed"] for split in splits)
    return {
        "images": images,
        "featured": sum(split["featured"] for split in splits),
        "wall": done.wall,
        "rate": images / done.wall,
        "extraction": images / report["seconds"]["extract"],
        "seconds": report["seconds"],
        "memory": asdict(done.memory),
        "cosine_min": (report.get("fidelity") or {}).get("cosine_min"),
    }


def run_peer(name: str, python: Path, script: Path, job: Job, *, settings: dict[str, str]) -> Run:
    """A script of the peers', run from their folder.

    Raises:
        ChildFailed: saying what it said.
    """
    command = [str(python), script.name, str(job.tree), str(Path(job.weights).resolve()), str(job.output)]
    done = run_command(command, cwd=script.parent, environment=settings)
    told = done.last_json()
    if done.failure or not told:
        raise ChildFailed(done.failure or "it printed no JSON")
    seconds = {key: value for key, value in told.items() if key in ("start", "extract", "pca_fit", "pca_write")}
    check = check_peer(job.output, Path(os.path.realpath(job.tree)), job.images, job.reference)
    said = " ".join([*(f"{key}={value}" for key, value in settings.items()), "python", script.name])
    return _run(name, job, said, done, seconds, check, {})


def _run(
    name: str, job: Job, command: str, done: Done, seconds: dict[str, float], check: Check, fidelity: dict[str, Any]
) -> Run:
    return Run(
        name=name,
        images=job.images,
        command=command,
        wall=done.wall,
        seconds=seconds,
        extraction=job.images / seconds["extract"],
        whole=job.images / done.wall,
        memory=done.memory,
        check=check,
        fidelity=fidelity,
    )
