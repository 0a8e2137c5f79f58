"""How fast mission9 is beside what others write for the same job, and whether what it computes is right.

    python benchmarks/bench.py [--images DIR] [--weights FILE] [--peers DIR] [--json FILE] [--only PART ...] [--long]

All is measured in one sitting, on the same images, weights and cores, one program after the other; each runs in a
process of its own, and is timed around that process and by its own account. The parts:

loop          the bare engine on one core, images decoded in memory
isolation     a worker's loop on one core, decoding in child processes and in itself
spark, local  `mission9 run` with Spark and with worker processes, float32
int8          both with --precision int8
second        the same command again over unchanged images
pandas-udf    the usual way on Spark: a pandas UDF, Spark ML's PCA
torch-loader  the usual way without Spark: torch's DataLoader, channels last, scikit-learn's PCA
others        Spark's predict_batch_udf; Ray Data and Daft where they are installed
pca           the PCA fit alone: ours, Spark ML's, scikit-learn's
curve         both runners at further sizes: what a run costs whatever its size, and what an image costs
long          with --long: 16,000 images, ours and the pandas UDF (half an hour more)

Figures go to benchmarks/results/bench.json and into docs/performance.md, unless --only names parts: then to --json and
--page alone.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from benchmarks.measure import RESULTS, SHARED
from benchmarks.measure.engine_loop import engine_loop
from benchmarks.measure.isolation import isolation
from benchmarks.measure.machine import this_machine
from benchmarks.measure.pca_fit import pca_times
from benchmarks.measure.ratios import DAFT, LOADER, PREDICT, RAY, UDF, as_table, ratios
from benchmarks.measure.reference import reference
from benchmarks.measure.results import RUNNERS, Result, Second, Sizes, curve_of, save
from benchmarks.measure.runs import mission9_run
from benchmarks.measure.sitting import Inputs, Sitting
from benchmarks.measure.trees import images_at_hand, jpegs, make_tree, warm
from benchmarks.report import PAGE, write_page

from mission9.models.weights import load_weights

PRECISIONS = ("float32", "int8")
BUSY = 0.5  # processes that run beside


def main() -> int:
    arguments = parse()
    file, page = destinations(arguments)
    with tempfile.TemporaryDirectory(prefix="mission9-bench-") as folder:
        sitting = sit_down(arguments, Path(folder).resolve())
        for name in arguments.only or [name for name in PARTS if name != "long" or arguments.long]:
            carry_out(name, sitting)
            complete(sitting.result)
            if file:
                save(sitting.result, file)
    print(*as_table(sitting.result.ratios), sep="\n")
    if file and page:
        write_page(page, bench=file)
        print(f"figures in {file}, page in {page}")
    for name in sitting.result.failed:
        print(f"benchmarks/bench.py: {name} failed: {sitting.result.skipped[name]}", file=sys.stderr)
    return 1 if sitting.result.failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of .jpg images (default: ../shared/fruits-360, else drawn)")
    parser.add_argument("--weights", help="demo, or a .pth file (default: the one in ../shared/weights, else demo)")
    parser.add_argument("--peers", type=Path, default=SHARED / "peers", help="folder of the peers' scripts")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--page", type=Path, help="file for the page that is made of them")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--long", action="store_true", help="also the long comparison")
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=list(RUNNERS), help="default: both")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of loop: default both")
    parser.add_argument("--count", type=int, default=4000, help="images of the main comparison (default: 4000)")
    parser.add_argument("--few", type=int, default=600, help="images of the small one (default: 600)")
    parser.add_argument("--long-count", type=int, default=16000, help="images of the long one (default: 16000)")
    parser.add_argument("--sizes", nargs="*", type=int, default=[500, 1000, 2000], help="further points of the curve")
    parser.add_argument("--components", type=int, default=50, help="of our PCA; the peers' have 50 (default: 50)")
    parser.add_argument("--repeats", type=int, default=3, help="passes of loop and pca, for their median (default: 3)")
    parser.add_argument("--loop-seconds", type=float, default=4.0, help="seconds of a pass of loop (default: 4)")
    return parser.parse_args()


def destinations(arguments: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """Return where figures and page go: a part of them never takes the place of a whole sitting unless told to."""
    if arguments.only or arguments.json:
        return arguments.json, arguments.page
    return RESULTS / "bench.json", arguments.page or PAGE


def sit_down(arguments: argparse.Namespace, work: Path) -> Sitting:
    """All that comes before the first figure."""
    source, called = images_at_hand(arguments.images, SHARED / "fruits-360", work)
    paths = jpegs(source)
    warm(source, paths)
    weights = arguments.weights or next(map(str, sorted((SHARED / "weights").glob("*.pth"))), "demo")
    smallest = make_tree(source, paths, min(arguments.few, arguments.count), work / "smallest")
    right, what_is_right = reference(source, smallest, weights, work)
    result = Result(
        machine=this_machine(),
        images=called,
        distinct=len(paths),
        weights=named(weights),
        reference=what_is_right,
        sizes=Sizes(many=arguments.count, few=arguments.few, long=arguments.long_count, curve=tuple(arguments.sizes)),
    )
    inputs = Inputs(
        source=source,
        paths=paths,
        weights=weights,
        peers=arguments.peers.resolve() if arguments.peers.is_dir() else None,
        runners=tuple(arguments.runners),
        precisions=tuple(arguments.precisions),
        components=arguments.components,
        repeats=arguments.repeats,
        loop_seconds=arguments.loop_seconds,
    )
    sitting = Sitting(inputs, result, right, work)
    if result.machine.load > BUSY:
        sitting.say(f"other work runs on this machine (load {result.machine.load}), which spoils the figures")
    return sitting


def named(weights: str) -> dict[str, str]:
    """The weights by name and by content, without the folder they lie in."""
    found = load_weights(weights)
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest() if Path(weights).is_file() else found.sha256
    return {"name": Path(weights).name, "sha256": digest}


def carry_out(name: str, sitting: Sitting) -> None:
    start = time.monotonic()
    PARTS[name](sitting)
    sitting.result.part_seconds[name] = round(time.monotonic() - start, 1)


def complete(result: Result) -> None:
    """Return what follows from the runs that there are."""
    result.curve = curve_of(result.runs.values())
    result.ratios = list(ratios(result))


def loop(sitting: Sitting) -> None:
    for precision in sitting.inputs.precisions:
        name = f"engine loop {precision}"
        sitting.say(f"{name} …")
        with sitting.skipping(name):
            found = engine_loop(
                sitting.tree(sitting.result.sizes.many),
                sitting.inputs.weights,
                precision,
                repeats=sitting.inputs.repeats,
                seconds=sitting.inputs.loop_seconds,
            )
            sitting.result.loops[precision] = found
            sitting.say(f"    {found.rate:.1f} images/s on one core")


def isolated(sitting: Sitting) -> None:
    sitting.say("decoding in child processes …")
    with sitting.skipping("isolation"):
        tree, repeats = sitting.tree(sitting.result.sizes.many), sitting.inputs.repeats
        found = sitting.result.isolation = isolation(tree, sitting.inputs.weights, repeats=repeats)
        sitting.say(f"    {found.ratio:.3f} of the speed of decoding in the worker")


def run_with(runner: str) -> Callable[[Sitting], None]:
    def part(sitting: Sitting) -> None:
        if runner in sitting.inputs.runners:
            sitting.ours(runner, sitting.result.sizes.many)

    return part


def int8(sitting: Sitting) -> None:
    for runner in sitting.inputs.runners:
        sitting.ours(runner, sitting.result.sizes.many, "int8")


def second(sitting: Sitting) -> None:
    runner = sitting.inputs.runners[0]
    first = sitting.ours(runner, sitting.result.sizes.many)
    if first is None:
        sitting.skip("second", "the first run failed")
        return
    sitting.say(f"{runner} again, nothing new …")
    with sitting.skipping("second"):
        options = [*first.command.split()[2:], "--weights", sitting.inputs.weights]
        done, report = mission9_run(options, sitting.tree(first.images), sitting.output(first))
        sitting.result.second = Second(
            command=first.command,
            images=sum(split["listed"] for split in report["splits"].values()),
            images_inferred=report["images_inferred"],
            wall=done.wall,
            seconds=report["seconds"],
        )
        sitting.say(f"    {done.wall:.1f} s, {report['images_inferred']:,} images inferred")


def pandas_udf(sitting: Sitting) -> None:
    sitting.peer(UDF, sitting.result.sizes.many)


def torch_loader(sitting: Sitting) -> None:
    sitting.peer(LOADER, sitting.result.sizes.many)
    few = sitting.result.sizes.few
    sitting.peer(LOADER, few)
    for runner in sitting.inputs.runners:
        sitting.ours(runner, few)


def others(sitting: Sitting) -> None:
    few = sitting.result.sizes.few
    for runner in sitting.inputs.runners:
        sitting.ours(runner, few)
    for name in (PREDICT, RAY, DAFT):
        sitting.peer(name, few)


def pca(sitting: Sitting) -> None:
    runs = [sitting.ours(runner, sitting.result.sizes.many) for runner in sitting.inputs.runners]
    run = next((run for run in runs if run is not None), None)
    if run is None:
        sitting.skip("pca", "there is no run whose features to take")
        return
    sitting.say("PCA fits …")
    with sitting.skipping("pca"):
        times = pca_times(
            sitting.output(run) / "features",
            sitting.inputs.components,
            repeats=sitting.inputs.repeats,
            with_spark="Spark" in sitting.inputs.runners,
        )
        sitting.result.pca = times
        sitting.say("    " + ", ".join(f"{name} {fit.median:.2f} s" for name, fit in times.fits.items()))


def curve(sitting: Sitting) -> None:
    for runner in sitting.inputs.runners:
        for images in (*sitting.result.sizes.curve, sitting.result.sizes.many):
            sitting.ours(runner, images)


def long(sitting: Sitting) -> None:
    for runner in sitting.inputs.runners:
        sitting.ours(runner, sitting.result.sizes.long)
    sitting.peer(UDF, sitting.result.sizes.long)


PARTS: dict[str, Callable[[Sitting], None]] = {
    "loop": loop,
    "isolation": isolated,
    "spark": run_with("Spark"),
    "local": run_with("local"),
    "int8": int8,
    "second": second,
    "pandas-udf": pandas_udf,
    "torch-loader": torch_loader,
    "others": others,
    "pca": pca,
    "curve": curve,
    "long": long,
}


if __name__ == "__main__":
    sys.exit(main())
