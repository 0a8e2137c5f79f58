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
    """A run of ours and one of others, their number of images, and the goal, if there is one."""

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
        yield _versus(result, versus, "extraction")
    for versus in _WHOLE:
        yield _versus(result, versus, "whole run")
    for precision in ("float32", "int8"):
        for runner in RUNNERS:
            yield _share(result, runner, precision)
    yield _isolation(result)
    yield _pca(result, "spark_ml", "Spark ML", "theirs / ours", _PCA)
    yield _pca(result, "sklearn", "scikit-learn in memory", "ours / theirs", _PCA_IN_MEMORY)
    yield _second(result)


def _versus(result: Result, versus: Versus, what: str) -> Ratio:
    """Return the ratio of the rates of extraction, or of the seconds of whole runs."""
    sizes = {_MANY: result.sizes.many, _FEW: result.sizes.few, _LONG: result.sizes.long}
    images = sizes[versus.images]
    names = key(versus.ours, images), key(versus.theirs, images)
    mine, other = (result.runs.get(name) for name in names)
    field, unit, how = (
        ("extraction", "images/s", "ours / theirs") if what == "extraction" else ("wall", "s", "theirs / ours")
    )
    return _ratio(
        f"{what}, {versus.ours} against {versus.theirs}, {images:,} images",
        (getattr(mine, field, None), getattr(other, field, None), unit),
        how=how,
        goal=versus.goal if images == versus.images else None,
        correctness=_correctness(mine, other),
        reason=_missing(result, *names),
    )


def _share(result: Result, runner: str, precision: str) -> Ratio:
    many = result.sizes.many
    name = ours(runner, precision)
    run, loop = result.runs.get(key(name, many)), result.loops.get(precision)
    return _ratio(
        f"extraction, {name} against all cores at the bare loop's rate, {many:,} images",
        (run.extraction if run else None, result.machine.cores * loop.rate if loop else None, "images/s"),
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
        (mine.median if mine else None, other.median if other else None, "s"),
        how=how,
        goal=goal if rows == _MANY else None,
        correctness=f"principal angle {mine.angle:.0e} / {other.angle:.0e}" if mine and other else "",
        reason=_missing(result, "pca"),
    )


def _isolation(result: Result) -> Ratio:
    found = result.isolation
    ratio = _ratio(
        "one core's loop, decoding in child processes against in the worker",
        (median(found.apart) if found else None, median(found.within) if found else None, "images/s"),
        goal=_ISOLATION,
        correctness="the same pixels (tests/decoding/test_decode_apart.py); ratio: the median of passes in turn",
        reason=_missing(result, "isolation"),
    )
    return replace(ratio, ratio=found.ratio, met=is_met(found.ratio, _ISOLATION)) if found else ratio


def _second(result: Result) -> Ratio:
    second = result.second
    return _ratio(
        "second run over unchanged images, after Spark's start",
        (second.after_start if second else None, None, "s"),
        how="ours",
        goal=_SECOND,
        correctness=f"{second.images_inferred:,} of {second.images:,} images inferred" if second else "",
        reason=_missing(result, "second"),
    )


def _missing(result: Result, *names: str) -> str:
    told = [result.skipped[name] for name in names if name in result.skipped]
    return told[0] if told else "no part of this sitting"


def _correctness(mine: Run | None, other: Run | None) -> str:
    parts = [f"ours: {mine.check}" if mine else "", f"theirs: {other.check}" if other else ""]
    return "; ".join(filter(None, parts))


def _ratio(
    figure: str,
    pair: tuple[float | None, float | None, str],
    *,
    how: str = "ours / theirs",
    goal: str | None,
    correctness: str,
    reason: str,
) -> Ratio:
    """Return the ratio of a pair, ours, theirs and their unit, or the reason why there is none."""
    mine, other, unit = pair
    value = None
    if mine is not None and (other is not None or how == "ours"):
        value = {"ours": mine, "ours / theirs": mine / (other or 1), "theirs / ours": (other or 1) / mine}[how]
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


def is_met(value: float, goal: str) -> bool:
    sign, number = goal.split()
    return _SIGNS[sign](value, float(number))
