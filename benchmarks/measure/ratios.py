"""The figures that count: ratios of what was measured in one sitting, with their goals."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.measure.results import RUNNERS, Ratio, Result, key, ours
from benchmarks.measure.runs import Run

UDF, LOADER, PREDICT, RAY, DAFT = (
    "spark_pandas_udf", "torch_loader NHWC", "spark_predict_batch_udf", "ray_data", "daft_udf",
)  # fmt: skip

_MANY, _FEW, _LONG = 4000, 600, 16000  # the sizes that goals are set for
_SHARE, _ISOLATION, _PCA, _PCA_IN_MEMORY, _SECOND = ">= 0.85", ">= 0.95", ">= 15", "<= 3", "< 10"
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt,
}  # fmt: skip


@dataclass(frozen=True)
class Versus:
    """Who against whom, at how many images, and the goal, if there is one."""

    ours: str
    theirs: str
    images: int
    goal: str | None = None


_EXTRACTION = (
    Versus("Spark", UDF, _MANY, ">= 8"),
    Versus("local", UDF, _MANY, ">= 8"),
    Versus("Spark int8", UDF, _MANY, ">= 14"),
    Versus("local int8", UDF, _MANY, ">= 14"),
)
_WHOLE = (
    Versus("Spark", UDF, _MANY, ">= 5.5"),
    Versus("local", UDF, _MANY, ">= 8"),
    Versus("Spark int8", UDF, _MANY, ">= 7"),
    Versus("local int8", UDF, _MANY),
    Versus("Spark", UDF, _LONG, ">= 7.5"),
    Versus("local", UDF, _LONG),
    Versus("Spark", LOADER, _MANY, ">= 3"),
    Versus("local", LOADER, _MANY, ">= 4"),
    Versus("Spark", LOADER, _FEW, "> 1"),
    Versus("local", LOADER, _FEW, ">= 2"),
    *(Versus("Spark", peer, _FEW) for peer in (PREDICT, RAY, DAFT)),
)


def ratios(result: Result) -> Iterator[Ratio]:
    """Every figure; what was not measured is there with its reason."""
    for versus in _EXTRACTION:
        yield _extraction(result, versus)
    for versus in _WHOLE:
        yield _whole(result, versus)
    for precision in ("float32", "int8"):
        for runner in RUNNERS:
            yield _share(result, runner, precision)
    yield _isolation(result)
    yield _pca(result, "spark_ml", "Spark ML", "theirs / ours", _PCA)
    yield _pca(result, "sklearn", "scikit-learn in memory", "ours / theirs", _PCA_IN_MEMORY)
    yield _second(result)


def _extraction(result: Result, versus: Versus) -> Ratio:
    images, goal = _size(result, versus)
    mine, other, reason = _pair(result, versus, images)
    return _ratio(
        f"extraction, {versus.ours} against {versus.theirs}, {images:,} images",
        "images/s",
        mine.extraction if mine else None,
        other.extraction if other else None,
        goal=goal,
        correctness=_correctness(mine, other),
        reason=reason,
    )


def _whole(result: Result, versus: Versus) -> Ratio:
    images, goal = _size(result, versus)
    mine, other, reason = _pair(result, versus, images)
    return _ratio(
        f"whole run, {versus.ours} against {versus.theirs}, {images:,} images",
        "s",
        mine.wall if mine else None,
        other.wall if other else None,
        how="theirs / ours",
        goal=goal,
        correctness=_correctness(mine, other),
        reason=reason,
    )


def _share(result: Result, runner: str, precision: str) -> Ratio:
    many = result.sizes.many
    name = ours(runner, precision)
    run, loop = result.runs.get(key(name, many)), result.loops.get(precision)
    return _ratio(
        f"extraction, {name} against all cores at the bare loop's rate, {many:,} images",
        "images/s",
        run.extraction if run else None,
        result.machine.cores * loop.rate if loop else None,
        goal=_SHARE if many == _MANY and precision == "float32" else None,
        correctness=_correctness(run, None),
        reason=_missing(result, key(name, many), f"engine loop {precision}"),
    )


def _pca(result: Result, theirs: str, called: str, how: str, goal: str) -> Ratio:
    times = result.pca
    fits = times.fits if times else {}
    mine, other = fits.get("ours"), fits.get(theirs)
    rows = times.rows if times else result.sizes.many
    return _ratio(
        f"PCA fit against {called}, {rows:,} rows of 1280",
        "s",
        mine.median if mine else None,
        other.median if other else None,
        how=how,
        goal=goal if rows == _MANY else None,
        correctness=f"principal angle {mine.angle:.0e} / {other.angle:.0e}" if mine and other else "",
        reason=_missing(result, "pca"),
    )


def _isolation(result: Result) -> Ratio:
    found = result.isolation
    ratio = _ratio(
        "one core's loop, decoding in child processes against in the worker",
        "images/s",
        median(found.apart) if found else None,
        median(found.within) if found else None,
        goal=_ISOLATION,
        correctness="the same pixels (tests/decoding/test_decode_apart.py); ratio: the median of passes in turn",
        reason=_missing(result, "isolation"),
    )
    return replace(ratio, ratio=found.ratio, met=is_met(found.ratio, _ISOLATION)) if found else ratio


def _second(result: Result) -> Ratio:
    second = result.second
    inferred = f"{second.images_inferred:,} of {second.images:,} images inferred" if second else ""
    return _ratio(
        "second run over unchanged images, after Spark's start",
        "s",
        second.after_start if second else None,
        None,
        how="ours",
        goal=_SECOND,
        correctness=inferred,
        reason=_missing(result, "second"),
    )


def _size(result: Result, versus: Versus) -> tuple[int, str | None]:
    """So many images in this sitting; a goal holds for the size it was set for."""
    sizes = {_MANY: result.sizes.many, _FEW: result.sizes.few, _LONG: result.sizes.long}
    images = sizes[versus.images]
    return images, versus.goal if images == versus.images else None


def _pair(result: Result, versus: Versus, images: int) -> tuple[Run | None, Run | None, str]:
    names = key(versus.ours, images), key(versus.theirs, images)
    mine, other = (result.runs.get(name) for name in names)
    return mine, other, _missing(result, *names)


def _missing(result: Result, *names: str) -> str:
    told = [result.skipped[name] for name in names if name in result.skipped]
    return told[0] if told else "no part of this sitting"


def _correctness(mine: Run | None, other: Run | None) -> str:
    parts = [f"ours: {mine.check}" if mine else "", f"theirs: {other.check}" if other else ""]
    return "; ".join(filter(None, parts))


def _ratio(
    figure: str,
    unit: str,
    mine: float | None,
    other: float | None,
    *,
    how: str = "ours / theirs",
    goal: str | None,
    correctness: str,
    reason: str,
) -> Ratio:
    value = _value(mine, other, how)
    return Ratio(
        figure=figure,
        unit=unit,
        ours=mine,
        theirs=other,
        how=how,
        ratio=value,
        goal=goal,
        met=None if value is None or goal is None else is_met(value, goal),
        correctness=correctness,
        reason="" if value is not None else reason,
    )


def _value(mine: float | None, other: float | None, how: str) -> float | None:
    if mine is None or (other is None and how != "ours"):
        return None
    return {"ours": mine, "ours / theirs": mine / (other or 1), "theirs / ours": (other or 1) / mine}[how]


def is_met(value: float, goal: str) -> bool:
    sign, number = goal.split()
    return _SIGNS[sign](value, float(number))


def as_table(found: list[Ratio]) -> Iterator[str]:
    """Lines for the terminal: a figure each, then its correctness."""
    yield f"{'figure':<76}{'ours':>10}{'theirs':>10}{'ratio':>8}  {'goal':<8}{'met':<6}"
    for ratio in found:
        if ratio.ratio is None:
            yield f"{ratio.figure:<76}not measured: {ratio.reason}"
            continue
        theirs = "" if ratio.theirs is None else f"{ratio.theirs:,.4g}"
        met = {True: "met", False: "MISSED", None: ""}[ratio.met]
        shown = f"{ratio.ours:>10,.4g}{theirs:>10}{ratio.ratio:>8.2f}"
        yield f"{ratio.figure:<76}{shown}  {ratio.goal or '':<8}{met:<6}"
        yield f"    {ratio.unit}; {ratio.correctness}"
