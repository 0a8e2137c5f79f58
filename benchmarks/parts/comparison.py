"""The comparison with what others write for the same job: parts that share one sitting's runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

from benchmarks.measure.engine_loop import engine_loop
from benchmarks.measure.isolation import isolation
from benchmarks.measure.pca_fit import pca_times
from benchmarks.measure.ratios import DAFT, LOADER, PREDICT, RAY, UDF, ratios
from benchmarks.measure.results import Second, curve_of
from benchmarks.measure.runs import mission9_run
from benchmarks.measure.sitting import Sitting
from benchmarks.parts import Figures, Part

SECTION = "bench"


def part(name: str, measure: Callable[[Sitting], None], *, is_long: bool = False) -> Part:
    """A part that adds to the sitting's result; its figures are that result as far as it has come."""

    def run(sitting: Sitting) -> Figures:
        start, result = time.monotonic(), sitting.result
        measure(sitting)
        result.part_seconds[name] = round(time.monotonic() - start, 1)
        result.curve = curve_of(result.runs.values())
        result.ratios = list(ratios(result))
        sitting.failures |= {failed: result.skipped[failed] for failed in result.failed}
        return asdict(result)

    return Part(name=name, section=SECTION, run=run, is_long=is_long)


def loop(sitting: Sitting) -> None:
    tree, options = sitting.tree(sitting.result.sizes.many), sitting.options
    for precision in options.precisions:
        name = f"engine loop {precision}"
        sitting.say(f"{name} …")
        with sitting.skipping(name):
            found = engine_loop(tree, sitting.weights, precision, repeats=options.repeats, seconds=options.loop_seconds)
            sitting.result.loops[precision] = found
            sitting.say(f"    {found.rate:.1f} images/s on one core")


def isolated(sitting: Sitting) -> None:
    sitting.say("decoding in child processes …")
    with sitting.skipping("isolation"):
        tree = sitting.tree(sitting.result.sizes.many)
        found = sitting.result.isolation = isolation(tree, sitting.weights, repeats=sitting.options.repeats)
        sitting.say(f"    {found.ratio:.3f} of the speed of decoding in the worker")


def run_with(runner: str) -> Callable[[Sitting], None]:
    def measure(sitting: Sitting) -> None:
        if runner in sitting.options.runners:
            sitting.ours(runner, sitting.result.sizes.many)

    return measure


def int8(sitting: Sitting) -> None:
    for runner in sitting.options.runners:
        sitting.ours(runner, sitting.result.sizes.many, "int8")


def second(sitting: Sitting) -> None:
    runner = sitting.options.runners[0]
    first = sitting.ours(runner, sitting.result.sizes.many)
    if first is None:
        sitting.skip("second", "the first run failed")
        return
    sitting.say(f"{runner} again, nothing new …")
    with sitting.skipping("second"):
        options = [*first.command.split()[2:], "--weights", sitting.weights]
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
    sitting.peer(LOADER, sitting.result.sizes.few)
    for runner in sitting.options.runners:
        sitting.ours(runner, sitting.result.sizes.few)


def others(sitting: Sitting) -> None:
    for runner in sitting.options.runners:
        sitting.ours(runner, sitting.result.sizes.few)
    for name in (PREDICT, RAY, DAFT):
        sitting.peer(name, sitting.result.sizes.few)


def pca(sitting: Sitting) -> None:
    options = sitting.options
    runs = [sitting.ours(runner, sitting.result.sizes.many) for runner in options.runners]
    run = next((run for run in runs if run is not None), None)
    if run is None:
        sitting.skip("pca", "there is no run whose features to take")
        return
    sitting.say("PCA fits …")
    with sitting.skipping("pca"):
        features, with_spark = sitting.output(run) / "features", "Spark" in options.runners
        times = pca_times(features, options.components, repeats=options.repeats, with_spark=with_spark)
        sitting.result.pca = times
        sitting.say("    " + ", ".join(f"{name} {fit.median:.2f} s" for name, fit in times.fits.items()))


def curve(sitting: Sitting) -> None:
    for runner in sitting.options.runners:
        for images in (*sitting.result.sizes.curve, sitting.result.sizes.many):
            sitting.ours(runner, images)


def long(sitting: Sitting) -> None:
    for runner in sitting.options.runners:
        sitting.ours(runner, sitting.result.sizes.long)
    sitting.peer(UDF, sitting.result.sizes.long)


COMPARISON = (
    part("loop", loop),
    part("isolation", isolated),
    part("spark", run_with("Spark")),
    part("local", run_with("local")),
    part("int8", int8),
    part("second", second),
    part("pandas-udf", pandas_udf),
    part("torch-loader", torch_loader),
    part("others", others),
    part("pca", pca),
    part("curve", curve),
    part("long", long, is_long=True),
)
