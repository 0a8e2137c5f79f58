"""One run that is hit at a moment of a stage, started again until it ends well, and held against a run in peace."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from benchmarks.measure.child import clean_environment
from benchmarks.measure.differences import differences, half_done
from benchmarks.measure.stages import STAGES, Stages

# By kind, the signal and what the command line of whoever gets it holds.
KINDS = {
    "driver": (signal.SIGKILL, ""),
    "int": (signal.SIGINT, ""),
    "term": (signal.SIGTERM, ""),
    "jvm": (signal.SIGKILL, r"bin/java (?!.*launcher\.Main).*deploy\.SparkSubmit"),  # and not what starts it
    "worker": (signal.SIGKILL, r"loky\.backend\.popen|spark_daemon"),
    "reader": (signal.SIGKILL, r"mission9\.decoding\.reader"),
    "decoder": (signal.SIGKILL, r"mission9\.decoding\.worker"),
    "stop": (signal.SIGSTOP, r"loky\.backend\.popen|spark_daemon"),
    "executor": (signal.SIGKILL, "CoarseGrainedExecutorBackend"),
    "cluster-worker": (signal.SIGKILL, r"deploy\.worker\.Worker"),
}
EXIT_CODES = {"int": 130, "term": 143}
GOES_ON = ("worker", "reader", "decoder", "stop", "executor", "cluster-worker")
LIMIT = 300  # seconds for a run
TO_END, TO_LOSE = 10, 15  # seconds that a run may take to end after a signal, and that a hit may cost a core


@dataclass(frozen=True, kw_only=True)
class Hit:
    """What is to happen: who is hit, in which stage, how far through it, and which of several; both from 0 to 1."""

    runner: str
    kind: str
    stage: str
    moment: float
    which: float
    on_a_result: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """What came of it: the run was in `stage`, ended with `code`, and was started `again` so often.

    `repeated` are images that were computed again though they had been committed, `lost` the seconds that a core had
    spent since its last commit.
    """

    runner: str
    kind: str
    stage: str
    on_a_result: bool
    hit: bool
    after: float
    code: int
    seconds_to_end: float
    again: int
    seconds_again: float
    committed: int
    repeated: int
    lost: float
    problems: list[str]

    @property
    def recovery(self) -> float:
        """Seconds from the hit, or the new start, to the result."""
        return self.seconds_again if self.again else self.seconds_to_end


@dataclass(frozen=True, kw_only=True)
class Peace:
    """A run that nobody disturbed, by the same command; `seconds` are by stage."""

    command: Sequence[str]
    environment: Mapping[str, str]
    output: Path
    seconds: Mapping[str, float]
    cores: int

    @cached_property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "run.json").read_bytes())
        return found

    def start(self, output: Path) -> Run:
        return Run(self.command, self.environment, output)

    def stages(self, output: Path) -> Stages:
        return Stages(output, self.report["fingerprint"], self.report["shards"])


class Run(threading.Thread):
    """A run in progress: what it says, and when it began to extract."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        super().__init__(daemon=True)
        self.began, self.extracts_since = time.time(), 0.0
        self.lines: list[str] = []
        self.process = subprocess.Popen(  # noqa: S603
            [*command, str(output)],
            env=clean_environment() | dict(environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.start()

    def run(self) -> None:
        assert self.process.stderr is not None  # noqa: S101 (for mypy)
        with self.process.stderr as lines:
            for line in lines:
                if line.startswith("extract:"):
                    self.extracts_since = time.time()
                self.lines.append(line.strip())

    def stage(self, stages: Stages) -> str:
        """The stage that it is in; while it waits for its runner, nothing in the output tells so."""
        now = stages.now()
        return "wait" if now == "extract" and not self.extracts_since else now

    def end(self) -> int:
        code = self.process.wait(LIMIT)
        self.join(5)  # whoever it started may live on, and holds the pipe
        return code


def in_peace(command: Sequence[str], environment: Mapping[str, str], output: Path, cores: int) -> Peace:
    """Run a command that nobody disturbs, and see how long each stage takes."""
    run, begun = Run(command, environment, output), {"start": time.monotonic()}
    stages = Stages(output)
    while run.process.poll() is None:
        begun.setdefault(run.stage(stages), time.monotonic())
        time.sleep(0.001)
    if run.end():
        raise SystemExit(f"the run in peace failed: {run.lines[-1:]}")
    ends = [*list(begun.values())[1:], time.monotonic()]
    seconds = {stage: end - at for (stage, at), end in zip(begun.items(), ends, strict=True)}
    return Peace(command=command, environment=environment, output=output, seconds=seconds, cores=cores)


def one_round(hit: Hit, peace: Peace, output: Path, roots: Sequence[int], *, timed: bool) -> Round:
    """Hit a run, and start it again until it ends well; `roots` are a cluster's processes."""
    run, stages = peace.start(output), peace.stages(output)
    family = wait_for(hit, run, peace, stages, roots)
    stage, is_hit, struck = run.stage(stages), strike(hit, run, family), time.time()
    lost = lost_seconds(stages, run, struck, peace.cores) if stage == "extract" else 0.0
    code = run.end()
    to_end = time.time() - struck
    problems = judge(hit, run, to_end, timed=timed) if is_hit else []
    problems += half_done(output)
    markers = [json.loads(file.read_bytes()) for file in stages.markers()] if code else []
    committed = sum(marker["features"]["rows"] + marker["rejects"]["rows"] for marker in markers)
    committed = min(committed, peace.report["images_inferred"])  # parts hold what their shards do
    if timed and lost > TO_LOSE:
        problems.append(f"a core had {lost:.0f} s of work in hand")
    again, seconds_again, repeated = start_again(peace, output, committed) if code else (0, 0.0, 0)
    problems += [*differences(output, peace.output), *family.left()]
    return Round(
        runner=hit.runner, kind=hit.kind, stage=stage, on_a_result=hit.on_a_result, hit=is_hit,
        after=round(struck - run.began, 2), code=code, seconds_to_end=round(to_end, 2), again=again,
        seconds_again=round(seconds_again, 2), committed=committed, repeated=repeated, lost=round(lost, 2),
        problems=problems,
    )  # fmt: skip


def wait_for(hit: Hit, run: Run, peace: Peace, stages: Stages, roots: Sequence[int]) -> Family:
    """Wait for the moment of a hit; returns the processes that there are."""
    family, looked = Family([], []), 0.0
    while STAGES.index(now := run.stage(stages)) < STAGES.index(hit.stage) and run.process.poll() is None:
        # A look takes longer than a later stage.
        if now in ("start", "list", "wait", "extract") and time.monotonic() - looked > 0.5:
            family, looked = Family.of(run.process.pid, roots), time.monotonic()
        time.sleep(0.001)
    time.sleep(hit.moment * peace.seconds.get(hit.stage, 0.0))
    while KINDS[hit.kind][1] and not family.targets(hit.kind) and run.process.poll() is None:
        time.sleep(0.02)
        family = Family.of(run.process.pid, roots)
    return family


@dataclass(frozen=True)
class Family:
    """The processes that a run has started, and those of its cluster."""

    own: list[psutil.Process]
    cluster: list[psutil.Process]

    @classmethod
    def of(cls, run: int, roots: Sequence[int]) -> Family:
        own, *others = (_descendants(pid) for pid in (run, *roots))
        heads = [psutil.Process(pid) for pid in roots if psutil.pid_exists(pid)]
        return cls(own, [*heads, *(process for found in others for process in found)])

    def targets(self, kind: str) -> list[psutil.Process]:
        """Whom a kind of hit may be meant for, in the order that they were started in."""
        found = [process for process in (*self.own, *self.cluster) if re.search(KINDS[kind][1], _command(process))]
        if kind == "stop":  # the parent of Spark's workers does no work itself
            found = [process for process in found if "spark_daemon" not in _command(process) or _is_forked(process)]
        return sorted(found, key=lambda process: process.pid)

    def left(self) -> list[str]:
        """Tell which of the run's own are still there after a while."""
        _, alive = psutil.wait_procs(self.own, timeout=TO_LOSE)
        return [f"still running: {_command(process)[:80]}" for process in alive]


def strike(hit: Hit, run: Run, family: Family) -> bool:
    """Send the signal to whom it is for; False where the run ended before."""
    number, words = KINDS[hit.kind]
    if run.process.poll() is not None:
        return False
    if not words:
        run.process.send_signal(number)
        return True
    targets = family.targets(hit.kind)
    try:
        targets[int(hit.which * len(targets))].send_signal(number)
    except (IndexError, psutil.NoSuchProcess):
        return False
    return True


def judge(hit: Hit, run: Run, to_end: float, *, timed: bool) -> list[str]:
    """Return what is wrong with the end of a run that was hit."""
    code, wanted = run.process.returncode, EXIT_CODES.get(hit.kind)
    # A command that is hit before Python is up is ended by the signal itself.
    if wanted and code not in (0, wanted, -KINDS[hit.kind][0]):
        return [f"exit {code} for {wanted}: {run.lines[-1:]}"]
    if wanted and timed and to_end > TO_END:
        return [f"ended {to_end:.0f} s after its signal"]
    if hit.kind in GOES_ON and code:
        return [f"the run died with exit {code}: {run.lines[-1:]}"]
    return []


def lost_seconds(stages: Stages, run: Run, struck: float, cores: int) -> float:
    """Return how long a core may have been at work on what it has not committed."""
    committed = sorted((file.stat().st_mtime for file in stages.markers()), reverse=True)
    since = committed[cores - 1] if len(committed) >= cores else 0.0
    return max(0.0, struck - max(since, run.extracts_since)) if run.extracts_since else 0.0


def start_again(peace: Peace, output: Path, committed: int) -> tuple[int, float, int]:
    """Tell how often a run had to be started anew, how long it took, and how many images it need not have computed."""
    began = time.monotonic()
    again = 1
    while peace.start(output).end() and again < 3:
        again += 1
    report = output / "run.json"
    inferred = json.loads(report.read_bytes())["images_inferred"] if report.exists() else 0
    return again, time.monotonic() - began, max(0, inferred + committed - peace.report["images_inferred"])


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)  # type: ignore[no-any-return]
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _is_forked(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
    except psutil.Error:
        return False
    return parent is not None and "spark_daemon" in _command(parent)
