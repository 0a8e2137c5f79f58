"""Damaged images by the hundred thousand, for the decoder and for the whole worker function.

    python benchmarks/fuzz.py [--inputs N] [--whole N] [--seed N] [--only NUMBER ...]

Small images of every accepted format and mode are damaged at random, and where their formats keep lengths, sizes and
tables. Most go to `decode_apart`, as the product uses it: each must end as a picture, or as a rejection with one of the
known reasons, and every tenth run of images, decoded once more, in the same. The others are files that are listed,
planned, extracted and committed by the worker function, with the demo weights: listed = featured + rejected, each time.

What must not happen fails the fuzz. What may, and is worth a look, is noted: images that took the child that decodes
them with them, took more than a second, or were refused for want of memory. Inputs of both kinds are kept in a folder;
`--only` makes the inputs of some numbers again, by the seed. Figures go to benchmarks/results/fuzz.json and, unless
`--no-page` is given, into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import RESULTS
from benchmarks.measure.fuzzing import Job, Tally, make_input, work
from benchmarks.measure.machine import cores_here, this_machine
from benchmarks.report import RELIABILITY, put_section, render

JOB_INPUTS = {"decode": 3200, "whole": 512}


def main() -> int:
    arguments = parse()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    for number in arguments.only:
        made = make_input(arguments.seed, number)
        name = f"{arguments.seed}-{number}.{made.kind.lower()}"
        (arguments.keep / name).write_bytes(made.data)
        print(f"{arguments.keep / name}: {made.name}")
    if arguments.only:
        return 0
    print(f"seed {arguments.seed}", flush=True)
    began = time.monotonic()
    tally = fuzz(arguments)
    figures = as_figures(tally, arguments.seed, time.monotonic() - began)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    text = render("fuzz", **figures)
    print(text)
    if not arguments.no_page:
        put_section(arguments.page, "fuzz", text)
    return 1 if tally.faults else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=190_000, help="for the decoder (default: 190,000)")
    parser.add_argument("--whole", type=int, default=10_240, help="for the worker function (default: 10,240)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the damage (default: the time)")
    parser.add_argument("--only", type=int, nargs="+", default=[], help="write the inputs of these numbers, no more")
    parser.add_argument("--keep", type=Path, default=RESULTS / "fuzz", help="folder for inputs worth a look")
    parser.add_argument("--json", type=Path, default=RESULTS / "fuzz.json", help="file for all figures")
    parser.add_argument("--page", type=Path, default=RELIABILITY, help="page whose figures are to be replaced")
    parser.add_argument("--no-page", action="store_true", help="leave the page as it is")
    return parser.parse_args()


def fuzz(arguments: argparse.Namespace) -> Tally:
    tally, done = Tally(), 0
    spawn = multiprocessing.get_context("spawn")  # as workers are made: nothing is shared by accident
    with ProcessPoolExecutor(cores_here(), mp_context=spawn) as pool:
        jobs = [pool.submit(work, job) for job in plan(arguments)]
        for job in as_completed(jobs):
            part = job.result()
            tally.add(part)
            done += part.inputs
            if done % 50_000 < part.inputs:
                print(f"{done:,} inputs, {len(tally.faults)} faults", flush=True)
    return tally


def plan(arguments: argparse.Namespace) -> Iterator[Job]:
    start = 0
    for target, count in (("whole", arguments.whole), ("decode", arguments.inputs)):
        end = start + count
        for first in range(start, end, JOB_INPUTS[target]):
            yield Job(target, arguments.seed, first, min(JOB_INPUTS[target], end - first), arguments.keep)
        start = end


def as_figures(tally: Tally, seed: int, seconds: float) -> dict[str, Any]:
    by_target = {
        target: {
            "inputs": counts.total(),
            "pictures": counts["picture"],
            "reasons": {reason: count for reason, count in counts.most_common() if reason != "picture"},
        }
        for target, counts in tally.by_target.items()
    }
    return {
        "seed": seed,
        "inputs": tally.inputs,
        "seconds": round(seconds, 1),
        "targets": by_target,
        "formats": {kind: dict(counts.most_common()) for kind, counts in sorted(tally.by_kind.items())},
        "decoded_twice": tally.decoded_twice,
        "child_peak_bytes": tally.child_peak,
        "faults": tally.faults,
        "noted": tally.noted,
        "slowest": round(tally.slowest, 3),
        "machine": asdict(this_machine()),
    }


if __name__ == "__main__":
    sys.exit(main())
