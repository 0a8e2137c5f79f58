"""benchmarks/chaos.py: that it would see what it looks for, and one hit of those that no other test has."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks import chaos
from benchmarks.chaos import RUNNERS, draw
from benchmarks.measure.chaos_page import as_table, section_lines
from benchmarks.measure.differences import differences, half_done
from benchmarks.measure.kills import KINDS, Hit, Peace, Round, judge, one_round
from benchmarks.measure.races import race_of_starts
from benchmarks.measure.stages import STAGES, Stages
from tests.conftest import InProcessRunner
from tests.support.finished import copy_of, with_changes, write_tree

from mission9 import RunConfig, run


@pytest.fixture(scope="module")
def finished(pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("finished")
    tree = write_tree(folder / "images", pictures)
    config = RunConfig(input=str(tree), output=str(folder / "out"), weights="demo", components=3)
    run(config, InProcessRunner())
    output = Path(config.output)
    assert list(differences(output, output)) == list(half_done(output)) == []
    return config


@pytest.fixture
def done(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """A finished run and its images."""
    return copy_of(finished, tmp_path)


@pytest.fixture
def right(done: RunConfig) -> Path:
    return Path(done.output)


@pytest.fixture
def other(right: Path, tmp_path: Path) -> Path:
    return shutil.copytree(right, tmp_path / "other")


def test_a_row_that_is_there_twice_is_seen(right: Path, other: Path) -> None:
    (part,) = (other / "features").glob("part-00000*")
    rows = pq.read_table(part)
    part.unlink()
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), part)
    assert "other rows of features" in list(differences(other, right))


def test_what_is_left_over_is_seen(right: Path, other: Path) -> None:
    (shards,) = (other / "_state" / "shards").iterdir()
    (shards / "0123abc.features.parquet").touch()
    (other / "_state" / "trash").mkdir()
    assert list(differences(other, right)) == ["left over: trash, 0123abc.features.parquet"]


def test_a_mixture_is_seen(done: RunConfig, right: Path, other: Path) -> None:
    run(with_changes(done, components=2), InProcessRunner())
    shutil.rmtree(other / "test_pca")
    shutil.copytree(right / "test_pca", other / "test_pca")
    assert "tables of {2, 3} components beside a run.json of 3" in list(half_done(other))


def test_stages_are_told_from_what_lies_there(right: Path, tmp_path: Path) -> None:
    assert Stages(tmp_path / "nothing").now() == "start"
    earlier = Stages(right)
    assert earlier.now() == "start"
    (right / "_state" / "work").mkdir()
    assert earlier.now() == "extract"
    (right / "_state" / "work" / "rejects").mkdir()
    assert earlier.now() == "fit"
    (right / "_state" / "work").rename(right / "_state" / "ready")
    assert earlier.now() == "publish"


def test_hits_fall_on_every_kind_and_stage_and_the_seed_settles_them() -> None:
    hits = list(islice(draw(list(RUNNERS), list(KINDS), Random(5)), 46))
    assert hits == list(islice(draw(list(RUNNERS), list(KINDS), Random(5)), 46))
    assert {hit.kind for hit in hits} == set(KINDS)
    assert {hit.stage for hit in hits if hit.kind in ("driver", "int", "term", "jvm")} == set(STAGES)


# One of several that start at once: the first makes the lock, and the others name it; or two win, or nobody is named.
START = """
import os, socket, sys
mode, lock = sys.argv[1], sys.argv[-1] + ".lock"
for name in (lock, lock + ".too")[: 2 if mode == "two" else 1]:
    try:
        os.symlink(str(os.getpid()), name)
        sys.exit()
    except FileExistsError:
        pass
if mode != "silent":
    where = f'"host": "{socket.gethostname()}", "pid": {os.readlink(lock)}, "since": "2026-01-01 00:00:00"'
    print("another run is writing it:", where, file=sys.stderr)
sys.exit(2)
"""


@pytest.mark.parametrize(
    ("mode", "problems"), [("one", []), ("two", ["2 of 5 won"]), ("silent", ["exit 2: []"] * 4)], ids=str
)
def test_of_starts_at_once_one_must_win_and_the_others_name_it(mode: str, problems: list[str], right: Path) -> None:
    race = race_of_starts([sys.executable, "-c", START, mode, "--output", str(right)])
    assert sorted(race.codes) == ([0, 0, 2, 2, 2] if mode == "two" else [0, 2, 2, 2, 2])
    assert race.problems[: len(problems)] == problems
    assert bool(race.problems) == bool(problems)


@pytest.mark.parametrize(
    ("kind", "code", "problem"),
    [
        ("driver", -9, ""),
        ("term", 143, ""),
        ("term", -15, ""),  # before Python was up
        ("term", 0, ""),  # it was done already
        ("term", 1, "exit 1 for 143"),
        ("int", 143, "exit 143 for 130"),
        ("worker", 0, ""),
        ("worker", 1, "the run died with exit 1"),
    ],
)
def test_a_run_must_end_as_its_hit_has_it(kind: str, code: int, problem: str) -> None:
    ended: Any = SimpleNamespace(process=SimpleNamespace(returncode=code), lines=["the last words"])
    hit = Hit(runner="local", kind=kind, stage="extract", moment=0, which=0, on_a_result=False)
    found = judge(hit, ended, 60, timed=False)
    assert found == ([f"{problem}: ['the last words']"] if problem else [])
    # In a fault's place, its time is judged.
    assert bool(judge(hit, ended, 60, timed=True)) == (bool(problem) or kind in ("int", "term"))


@pytest.mark.parametrize("problems", [[], ["other rows of features"]], ids=["well", "badly"])
def test_the_figures_are_kept_and_told(
    problems: list[str],
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def hits(*_: object, **__: object) -> Iterator[Round]:
        facts: dict[str, Any] = {"runner": "local", "stage": "extract", "on_a_result": False, "after": 4.0}
        costs: dict[str, Any] = {
            "seconds_to_end": 0.5,
            "seconds_again": 2.5,
            "committed": 8,
            "repeated": 3,
            "lost": 1.0,
        }
        yield Round(kind="driver", hit=True, code=-9, again=1, problems=problems, **facts, **costs)
        yield Round(kind="worker", hit=True, code=0, again=0, problems=[], **facts, **costs)
        yield Round(kind="worker", hit=False, code=0, again=0, problems=[], **facts, **costs)

    read = {"rewrites": 2, "reads": 40, "mixed": 0, "changed_meanwhile": 5, "mixed_at_one_look": 3}
    monkeypatch.setattr(chaos, "kills", hits)
    monkeypatch.setattr(chaos, "races", lambda *_: {"rounds": 1, "problems": []})
    monkeypatch.setattr(chaos, "readings", lambda *_: read)
    words = ["--images", "20", "--input", str(sample), "--runners", "local", "--json", str(tmp_path / "chaos.json")]
    monkeypatch.setattr(sys, "argv", ["chaos.py", *words, "--seed", "11"])
    assert chaos.main() == (1 if problems else 0)
    figures: dict[str, Any] = json.loads((tmp_path / "chaos.json").read_text())
    assert [found["recovery"] for found in figures["rounds"]] == [2.5, 0.5, 0.5]
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("A reader beside 2 rewrites read 40 results: 0 were mixed")
    )
    text = "\n".join(section_lines(figures))
    assert "one won each time" in text
    assert f"| local | driver | 1 | 1 | {0 if problems else 1} | 3 | 1.0 s | 2.5 s |" in text
    assert "| local | worker | 1 | 0 | 1 | 3 | 1.0 s | 0.5 s |" in text
    assert f"| all |  | 2 | 1 | {1 if problems else 2} | 3 | 1.0 s | 2.5 s |" in text
    assert ", extract 2, " in text
    assert next(as_table(figures)).startswith("runner")


@pytest.mark.spark
@pytest.mark.slow
def test_a_run_whose_java_is_killed_is_whole_when_it_is_started_again(finished: RunConfig, tmp_path: Path) -> None:
    """Tests of the pipeline, the runners and the command kill whom else there is."""
    command = chaos.Place(Path(finished.input), tmp_path).command("--runner", "spark", "--components", "3", "--output")
    peace = Peace(command=command, environment={}, output=Path(finished.output), seconds={}, cores=2)
    hit = Hit(runner="spark", kind="jvm", stage="extract", moment=0, which=0, on_a_result=False)
    found = one_round(hit, peace, tmp_path / "hit", [], timed=False)
    assert (found.stage, found.hit, found.again, found.problems) == ("extract", True, 1, []), found
    assert found.code
