"""Runs that are killed at random moments, and what became of them.

    python benchmarks/chaos.py [--rounds N] [--images N] [--runners local spark] [--kinds KIND ...] [--seed N]

A run is made in peace first. Then, for each runner and kind of kill, runs of the same images are hit at a random moment
between their start and the time that the first one took; a run that died of it is started again with the same command
until it ends well. In the end its tables must be those of the first run, row for row, features within 1e-5, `mission9
verify` must find nothing, and nothing may be left over. After each kill, what is published, if anything, must be whole.

driver    kill -9 of the command itself
int, term the signals SIGINT and SIGTERM to it: exit 130 or 143
jvm       kill -9 of Spark's Java
worker    kill -9 of a worker process: the run itself goes on
decoder   kill -9 of a child that decodes: likewise

Figures go to benchmarks/results/chaos.json.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import numpy as np
import psutil
import pyarrow.parquet as pq
from benchmarks.measure import RESULTS, SHARED
from benchmarks.measure.child import clean_environment
from benchmarks.measure.trees import images_at_hand, jpegs, make_tree

from mission9.errors import OutputError
from mission9.schema import vectors
from mission9.stages.verify_output import verify_output

# By kind, the signal and how to tell who gets it.
KINDS = {
    "driver": (signal.SIGKILL, ""),
    "int": (signal.SIGINT, ""),
    "term": (signal.SIGTERM, ""),
    "jvm": (signal.SIGKILL, "SparkSubmit"),
    "worker": (signal.SIGKILL, "loky|pyspark.daemon"),
    "decoder": (signal.SIGKILL, "stages.decoder"),
}
EXIT_CODES = {"int": 130, "term": 143}
GOES_ON = ("worker", "decoder")
LIMIT = 300  # seconds for a run


@dataclass(frozen=True, kw_only=True)
class Round:
    """One run that was hit `after` so many seconds; `code` is how it ended, `again` how often it was started anew."""

    runner: str
    kind: str
    after: float
    hit: bool
    code: int
    seconds_to_end: float
    committed: int
    again: int
    seconds_again: float
    inferred_again: int
    problems: list[str]


def main() -> int:
    arguments = parse()
    chance = random.Random(arguments.seed)  # noqa: S311 (moments, no secrets)
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="mission9-chaos-") as folder:
        work = Path(folder).resolve()
        source, called = images_at_hand(None, SHARED / "fruits-360", work)
        tree = make_tree(source, jpegs(source), arguments.images, work / "images")
        print(f"seed {arguments.seed}, {arguments.images:,} images ({called})", flush=True)
        for runner in arguments.runners:
            options = ["--runner", runner, "--weights", "demo", "--components", "5"]
            command = [sys.executable, "-m", "mission9", "run", "--input", str(tree), *options, "--output"]
            right, took = work / f"right {runner}", time.monotonic()
            subprocess.run([*command, str(right)], env=clean_environment(), check=True, capture_output=True)  # noqa: S603
            took = time.monotonic() - took
            for kind in (kind for kind in arguments.kinds if kind != "jvm" or runner == "spark"):
                for number in range(arguments.rounds):
                    output = work / f"{runner} {kind} {number}"
                    found = one_round(runner, kind, [*command, str(output)], right, chance.uniform(0, took))
                    rounds.append(found)
                    told = "; ".join(found.problems) or "as the run in peace"
                    print(f"{runner} {kind:<8} after {found.after:5.1f} s: exit {found.code}, {told}", flush=True)
    figures = {"seed": arguments.seed, "images": arguments.images, "rounds": [asdict(found) for found in rounds]}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(*as_table(rounds), sep="\n")
    return 1 if any(found.problems for found in rounds) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="of each kind and runner (default: 4)")
    parser.add_argument("--images", type=int, default=1500, help="of a run (default: 1500)")
    parser.add_argument("--runners", nargs="+", choices=("local", "spark"), default=["local", "spark"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments (default: the time)")
    parser.add_argument("--json", type=Path, default=RESULTS / "chaos.json", help="file for all rounds")
    return parser.parse_args()


def one_round(runner: str, kind: str, command: list[str], right: Path, after: float) -> Round:
    output = Path(command[-1])
    process = start(command)
    time.sleep(after)
    hit = strike(process, kind)
    struck = time.monotonic()
    code = process.wait(LIMIT)
    to_end = time.monotonic() - struck
    problems = list(half_done(output))
    # A command that is hit before Python is up is ended by the signal itself.
    if hit and kind in EXIT_CODES and code not in (0, EXIT_CODES[kind], -KINDS[kind][0]):
        problems.append(f"exit {code} for {EXIT_CODES[kind]}")
    if hit and kind in EXIT_CODES and to_end > 10:
        problems.append(f"ended {to_end:.0f} s after its signal")
    if kind in GOES_ON and code:
        problems.append(f"the run died with exit {code}")
    committed, again, began = images_committed(output), 0, time.monotonic()
    while code and again < 3:
        again += 1
        code_again = start(command).wait(LIMIT)
        if not code_again:
            break
    seconds_again = time.monotonic() - began if again else 0.0
    inferred = json.loads((output / "run.json").read_bytes())["images_inferred"] if again else 0
    problems += differences(output, right)
    return Round(
        runner=runner,
        kind=kind,
        after=round(after, 2),
        hit=hit,
        code=code,
        seconds_to_end=round(to_end, 2),
        committed=committed,
        again=again,
        seconds_again=round(seconds_again, 2),
        inferred_again=inferred,
        problems=problems,
    )


def start(command: list[str]) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, env=clean_environment(), stdout=nothing, stderr=nothing)  # noqa: S603


def strike(process: subprocess.Popen[bytes], kind: str) -> bool:
    """Send the signal to whom it is for, as soon as there is one; False where the run ends before."""
    number, words = KINDS[kind]
    while process.poll() is None:
        targets = [psutil.Process(process.pid)] if not words else list(children(process.pid, words))
        if targets:
            random.choice(targets).send_signal(number)  # noqa: S311
            return True
        time.sleep(0.02)
    return False


def children(pid: int, words: str) -> Iterator[psutil.Process]:
    for child in psutil.Process(pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if any(word in line for word in words.split("|")):
            yield child


def half_done(output: Path) -> Iterator[str]:
    """What is published but not whole."""
    if (output / "run.json").exists():
        yield from verify_output(str(output))


def images_committed(output: Path) -> int:
    """How many images the markers say are done."""
    markers = (json.loads(file.read_bytes()) for file in output.glob("_state/shards/*/[0-9a-f]*.json"))
    return sum(marker["features"]["rows"] + marker["rejects"]["rows"] for marker in markers)


def differences(output: Path, right: Path) -> Iterator[str]:
    """What is not as in the run in peace."""
    try:
        yield from verify_output(str(output))
    except OutputError as error:
        yield str(error)
        return
    mine, theirs = (pq.read_table(folder / "features").sort_by("path") for folder in (output, right))
    keys = ["path", "split", "label", "width", "height", "bytes", "sha256"]
    if not mine.select(keys).equals(theirs.select(keys)):
        yield "other rows of features"
    elif not np.allclose(vectors(mine["features"]), vectors(theirs["features"]), rtol=1e-5, atol=1e-5):
        yield "other features"
    left = [str(file.relative_to(output)) for file in output.rglob("*") if file.name.startswith(".")]
    left += [name for name in ("work", "ready", "trash", "chunks") if (output / "_state" / name).exists()]
    if left:
        yield f"left over: {', '.join(left)}"


def as_table(rounds: list[Round]) -> Iterator[str]:
    yield f"{'runner':<8}{'kill':<9}{'rounds':>7}{'hit':>5}{'died':>6}{'recovered':>11}{'longest recovery':>18}"
    for runner, kind in dict.fromkeys((found.runner, found.kind) for found in rounds):
        of_kind = [found for found in rounds if (found.runner, found.kind) == (runner, kind)]
        hit, died, well = (
            sum(map(test, of_kind)) for test in (lambda r: r.hit, lambda r: r.code != 0, lambda r: not r.problems)
        )
        longest = max(found.seconds_again for found in of_kind)
        yield f"{runner:<8}{kind:<9}{len(of_kind):>7}{hit:>5}{died:>6}{well:>11}{longest:>16.1f} s"


if __name__ == "__main__":
    sys.exit(main())
