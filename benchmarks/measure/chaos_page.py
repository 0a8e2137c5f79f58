"""Text of the figures of benchmarks/chaos.py: for the terminal, and for a page between two marks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.measure.stages import STAGES
from benchmarks.report import render

HEADS = ["runner", "hit", "hits", "ended by it", "recovered", "images repeated", "lost a core", "longest recovery"]

Json = dict[str, Any]


def section_lines(figures: Json) -> Iterator[str]:
    stages = ", ".join(f"{stage} {count}" for stage, count in by_stage(figures))
    facts = {"heads": HEADS, "rows": list(rows(figures)), "stages": stages, "meetings": list(meetings(figures))}
    yield from render("chaos", **(figures | facts)).splitlines()


def as_table(figures: Json) -> Iterator[str]:
    """The same for a terminal."""
    lines = [HEADS, *rows(figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
    yield "by stage: " + ", ".join(f"{stage} {count}" for stage, count in by_stage(figures))
    yield from meetings(figures)


def rows(figures: Json) -> Iterator[list[str]]:
    pairs = sorted({(found["runner"], found["kind"]) for found in figures["rounds"]})
    for runner, kind in pairs:
        yield [runner, kind, *_cells([r for r in figures["rounds"] if (r["runner"], r["kind"]) == (runner, kind)])]
    if pairs:
        yield ["all", "", *_cells(figures["rounds"])]


def by_stage(figures: Json) -> Iterator[tuple[str, int]]:
    hits = [found["stage"] for found in figures["rounds"] if found["hit"]]
    yield from ((stage, hits.count(stage)) for stage in STAGES)


def meetings(figures: Json) -> Iterator[str]:
    races, read = figures["races"], figures["readings"]
    if races["rounds"]:
        yield (
            f"Five starts at once on one output, {races['rounds']} times: "
            f"{'; '.join(races['problems']) or 'one won each time, the others named it, and the result was right'}."
        )
    if read["rewrites"]:
        yield ""
        yield (
            f"A reader beside {read['rewrites']} rewrites read {read['reads']:,} results: {read['mixed']} were mixed. "
            f"It began anew {read['changed_meanwhile']:,} times since `run.json` had changed meanwhile; "
            f"{read['mixed_at_one_look']:,} of these would have been mixed, or have failed."
        )


def _cells(rounds: list[Json]) -> list[str]:
    hits = [found for found in rounds if found["hit"]]
    well = sum(not found["problems"] for found in hits)
    died = sum(bool(found["code"]) for found in hits)
    most = (max((found[name] for found in rounds), default=0) for name in ("repeated", "lost", "recovery"))
    repeated, lost, recovery = most
    return [str(len(hits)), str(died), str(well), str(repeated), f"{lost:.1f} s", f"{recovery:.1f} s"]
