"""benchmarks/chaos.py: a short run of it, and that it would see what it looks for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.chaos import RUNNERS, draw
from benchmarks.measure.chaos_page import as_table, section_lines
from benchmarks.measure.differences import differences, half_done
from benchmarks.measure.kills import KINDS
from benchmarks.measure.stages import STAGES, Stages

from mission9 import RunConfig, run
from tests.conftest import REPOSITORY, InProcessRunner


@pytest.fixture
def right(tree: Path, tmp_path: Path) -> Path:
    output = tmp_path / "right"
    run(RunConfig(input=str(tree), output=str(output), weights="demo", components=3), InProcessRunner())
    return output


@pytest.fixture
def other(right: Path, tmp_path: Path) -> Path:
    assert list(differences(right, right)) == list(half_done(right)) == []
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


def test_a_mixture_is_seen(tree: Path, right: Path, other: Path) -> None:
    run(RunConfig(input=str(tree), output=str(right), weights="demo", components=2), InProcessRunner())
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


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_chaos_ends_well(tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    few = ["--rounds", "5", "--races", "1", "--rewrites", "2", "--images", "300", "--seed", "11", "--untimed"]
    which = ["--runners", "local", "spark", "--kinds", "driver", "term", "worker", "jvm", "--json", str(file)]
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "chaos.py"), *few, *which]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=850)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    figures: dict[str, Any] = json.loads(file.read_text())
    assert len(figures["rounds"]) == 5
    assert any(found["hit"] and found["again"] for found in figures["rounds"])
    text = "\n".join(section_lines(figures))
    assert "one won each time" in text
    assert next(as_table(figures)).startswith("runner")
