"""Runs that are killed at random moments, that meet in one output folder, or are read meanwhile; the results of each.

    python benchmarks/chaos.py [--seconds N] [--rounds N] [--runners local spark standalone] [--kinds KIND ...]

A run is made in peace first. Then, for kinds of hits and runners by turns, a run of the same images is hit at a random
moment of a stage; half of them lie on an earlier result of other settings. A run that died of it is started again with
the same command until it ends well. In the end its tables must be those of the first run, row for row, features within
1e-5, `mission9 verify` must find nothing, and nothing may be left over, file or process. After each hit, what is
published, if anything, must be whole.

driver          kill -9 of the command itself
int, term       the signals SIGINT and SIGTERM to it: exit 130 or 143 within 10 seconds
jvm             kill -9 of Spark's Java
worker          kill -9 of a process of Python's that works: the run itself goes on
reader          kill -9 of a process that reads files for it: likewise
decoder         kill -9 of a process that decodes: likewise
stop            SIGSTOP of a process of Python's that works: likewise
executor        kill -9 of an executor of the standalone cluster: likewise
cluster-worker  kill -9 of one of its two workers, and its executor with it: likewise

The first four fall in all stages, the others in the extraction. Then runs are started five at once, of which one must
win and the others name it, and a reader reads over and over while results are rewritten.

Figures go to benchmarks/results/chaos.json, and into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import RESULTS, SHARED
from benchmarks.measure.chaos_page import as_table, section_lines
from benchmarks.measure.child import clean_environment
from benchmarks.measure.kills import GOES_ON, KINDS, Hit, Peace, Round, in_peace, one_round
from benchmarks.measure.machine import this_machine
from benchmarks.measure.races import race_of_starts, read_during_rewrites
from benchmarks.measure.stages import STAGES
from benchmarks.measure.trees import images_at_hand, jpegs, make_tree
from benchmarks.report import RELIABILITY, put_section
from tests.support.cluster import MEMORY, Cluster

RUNNERS = ("local", "spark", "standalone")
COMPONENTS = 5
FEW_IMAGES = 300  # of runs that meet: enough for the last of five to start before the first is done
# Of the earlier result that some runs find in their output.
EARLIER = ["--preprocess", "crop", "--components", "3", "--runner", "local"]


@dataclass(frozen=True)
class Place:
    """The images, and a folder for results."""

    tree: Path
    work: Path

    def command(self, *options: str) -> list[str]:
        """A run of the images, but for the name of its output."""
        return [sys.executable, "-m", "mission9", "run", "--input", str(self.tree), "--weights", "demo", *options]


def main() -> int:
    arguments, figures = parse(), dict[str, Any]()
    began, chance = time.monotonic(), random.Random(arguments.seed)  # noqa: S311 (moments, no secrets)
    with tempfile.TemporaryDirectory(prefix="mission9-chaos-") as folder, contextlib.ExitStack() as stack:
        work = Path(folder).resolve()
        source, called = images_at_hand(arguments.input, SHARED / "fruits-360", work)
        place = Place(make_tree(source, jpegs(source), arguments.images, work / "images"), work)
        few = Place(make_tree(source, jpegs(source), min(arguments.images, FEW_IMAGES), work / "few"), work)
        print(f"seed {arguments.seed}, {arguments.images:,} images ({called})", flush=True)
        figures |= {"seed": arguments.seed, "images": arguments.images, "source": called}
        figures |= {"machine": asdict(this_machine())}
        figures |= {"races": races(few, arguments.races), "readings": readings(few, arguments.rewrites)}
        cluster = stack.enter_context(Cluster(work)) if "standalone" in arguments.runners else None
        rounds = list(kills(place, cluster, arguments, chance, ends=began + arguments.seconds))
    figures |= {"rounds": [asdict(found) | {"recovery": found.recovery} for found in rounds]}
    figures |= {"seconds": round(time.monotonic() - began)}
    print(*as_table(figures), sep="\n")
    keep(figures, arguments.json)
    return 1 if figures["races"]["problems"] or figures["readings"]["mixed"] or any(r.problems for r in rounds) else 0


def keep(figures: dict[str, Any], file: Path | None) -> None:
    """Write the figures to a file; without one, to where they belong, and into the page."""
    target = file or RESULTS / "chaos.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=1) + "\n")
    if file is None:
        put_section(RELIABILITY, "chaos", "\n".join(section_lines(figures)) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=1200, help="after which no round is begun (default: 1200)")
    parser.add_argument("--rounds", type=int, help="hits in all (default: as many as there is time for)")
    parser.add_argument("--races", type=int, default=20, help="rounds of five starts at once (default: 20)")
    parser.add_argument("--rewrites", type=int, default=20, help="of a result that is read meanwhile (default: 20)")
    parser.add_argument("--images", type=int, default=1000, help="of a run (default: 1000)")
    parser.add_argument("--input", type=Path, help="folder of images to take them from")
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=list(RUNNERS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of moments and whom (default: the time)")
    parser.add_argument("--untimed", action="store_true", help="judge no seconds, on a machine that has other work")
    parser.add_argument("--json", type=Path, help="file for the figures, which do not go into the page then")
    return parser.parse_args()


def kills(
    place: Place, cluster: Cluster | None, arguments: argparse.Namespace, chance: random.Random, ends: float
) -> Iterator[Round]:
    """Rounds of hits, as long as there is time for one more."""
    earlier, peaces = place.work / "earlier", dict[str, Peace]()
    subprocess.run(  # noqa: S603
        [*place.command(*EARLIER), "--output", str(earlier)], env=clean_environment(), check=True, capture_output=True
    )
    longest = 0.0
    for number, hit in enumerate(itertools.islice(draw(arguments.runners, arguments.kinds, chance), arguments.rounds)):
        began = time.monotonic()
        if began + longest > ends:
            return
        peace = peaces.setdefault(hit.runner, peaces.get(hit.runner) or peace_of(place, hit.runner, cluster))
        output = place.work / f"{number}"
        if hit.on_a_result:
            copy_result(earlier, output)
        roots = cluster.pids if cluster and hit.runner == "standalone" else []
        found = one_round(hit, peace, output, roots, timed=not arguments.untimed)
        print(told(found), flush=True)
        yield found
        if cluster and hit.runner == "standalone":
            cluster.mend()
        shutil.rmtree(output)
        longest = max(longest, time.monotonic() - began)


def draw(runners: list[str], kinds: list[str], chance: random.Random) -> Iterator[Hit]:
    """Hits without end: of each runner and kind by turns, in random order; and of the stages likewise."""
    pairs = [(runner, kind) for runner in runners for kind in kinds if is_there(runner, kind)]
    stages = itertools.chain.from_iterable(chance.sample(STAGES, len(STAGES)) for _ in itertools.count())
    while pairs:
        for runner, kind in chance.sample(pairs, len(pairs)):
            stage = "extract" if kind in GOES_ON else next(stages)
            moment, which, on_a_result = chance.random(), chance.random(), chance.random() < 0.5
            yield Hit(runner=runner, kind=kind, stage=stage, moment=moment, which=which, on_a_result=on_a_result)


def is_there(runner: str, kind: str) -> bool:
    """Tell whether a runner has whom a kind of hit is meant for."""
    if kind in ("executor", "cluster-worker"):
        return runner == "standalone"
    return kind != "jvm" or runner != "local"


def peace_of(place: Place, runner: str, cluster: Cluster | None) -> Peace:
    """A run that nobody disturbs, to hold the others against."""
    options = ["--master", cluster.master] if cluster and runner == "standalone" else ["--runner", runner]
    command = place.command(*options, "--components", str(COMPONENTS), "--output")
    environment = MEMORY if runner == "standalone" else {}
    cores = 2 if runner == "standalone" else len(os.sched_getaffinity(0))
    return in_peace(command, environment, place.work / f"in peace {runner}", cores)


def copy_result(earlier: Path, output: Path) -> None:
    """An earlier result under another name; its files are links, but for the lock, which is written to."""
    shutil.copytree(earlier, output, copy_function=os.link, ignore=shutil.ignore_patterns("lock"))


def races(place: Place, rounds: int) -> dict[str, object]:
    """Five starts at once, time and again."""
    found = []
    for number in range(rounds):
        output = place.work / f"race {number}"
        command = [*place.command("--runner", "local", "--components", str(COMPONENTS)), "--output", str(output)]
        found.append(race_of_starts(command))
        print(f"five starts at once: exits {found[-1].codes} {'; '.join(found[-1].problems)}", flush=True)
        shutil.rmtree(output)
    return {"rounds": rounds, "problems": [problem for race in found for problem in race.problems]}


def readings(place: Place, rewrites: int) -> Mapping[str, int]:
    """A reader beside runs that write a result anew."""
    output = place.work / "read"
    options = [["--components", str(2 + n % 2), "--output", str(output)] for n in range(rewrites + 1)]
    commands = [place.command("--runner", "local", *options[0]), *(place.command(*given) for given in options[1:])]
    found = asdict(read_during_rewrites(commands, output))
    print(f"a reader during rewrites: {found}", flush=True)
    return found


def told(found: Round) -> str:
    upon = "on a result" if found.on_a_result else "afresh"
    which = f"{found.runner} {found.kind} in {found.stage} {upon}" + ("" if found.hit else ", which ended before")
    then = f"exit {found.code}, the result {found.recovery:.1f} s later, {found.lost:.1f} s lost"
    return f"{which}: {then}; {'; '.join(found.problems) or 'as in peace'}"


if __name__ == "__main__":
    sys.exit(main())
