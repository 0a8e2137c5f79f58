"""benchmarks/bench.py, large.py and report.py on few generated pictures, without Spark and the peers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.measure.child import run_command
from benchmarks.measure.page import put_section
from benchmarks.measure.ratios import is_met
from benchmarks.measure.resources import Sample
from benchmarks.measure.results import line
from benchmarks.measure.trees import jpegs, make_flat, make_tree, stratified
from benchmarks.soak import growth

from tests.conftest import REPOSITORY

RUN = {"list", "start", "extract", "fit", "project", "save_model"}

pytestmark = pytest.mark.slow


def program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def small(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(sample, jpegs(sample), 80, tmp_path_factory.mktemp("small") / "fruits")


@pytest.fixture(scope="module")
def bench(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figures of a short sitting, and the page made of them beside it."""
    folder = tmp_path_factory.mktemp("bench")
    parts = ["loop", "local", "second", "pca", "curve", "pandas-udf"]
    sizes = ["--count", "60", "--few", "30", "--sizes", "30"]
    quick = [
        "--runners",
        "local",
        "--precisions",
        "float32",
        "--components",
        "5",
        "--repeats",
        "1",
        "--loop-seconds",
        "0.2",
    ]
    files = ["--json", str(folder / "bench.json"), "--page", str(folder / "performance.md"), "--peers", str(folder)]
    inputs = ["--images", str(small), "--weights", "demo"]
    done = program("bench.py", *inputs, *files, *quick, *sizes, "--only", *parts)
    assert (done.returncode, done.stderr) == (0, "")
    assert "extraction, local against spark_pandas_udf" in done.stdout
    return folder


@pytest.fixture(scope="module")
def figures(bench: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bench / "bench.json").read_text())
    return found


def test_runs_are_whole_and_right(figures: dict[str, Any]) -> None:
    assert set(figures["runs"]) == {"local 60", "local 30"}
    for run in figures["runs"].values():
        check = run["check"]
        assert run["seconds"].keys() >= RUN
        assert 0 < run["seconds"]["extract"] < sum(run["seconds"].values()) < run["wall"]
        assert run["extraction"] == pytest.approx(run["images"] / run["seconds"]["extract"])
        assert run["whole"] == pytest.approx(run["images"] / run["wall"])
        assert check["whole"]
        assert (check["rows"], check["compared"] > 0, check["components"]) == (run["images"], True, 5)
        assert check["cosine_min"] > 0.99999
        assert check["pca_difference"] < 1e-4
        assert run["memory"]["kinds"]["driver"]["largest"] > 2**20


def test_ratios_are_those_of_the_figures(figures: dict[str, Any]) -> None:
    shown = {ratio["figure"]: ratio for ratio in figures["ratios"]}
    for ratio in shown.values():
        assert (ratio["ratio"] is None) == bool(ratio["reason"])
        assert (ratio["met"] is None) == (ratio["goal"] is None or ratio["ratio"] is None)
    share = shown["extraction, local against all cores at the bare loop's rate, 60 images"]
    bare = figures["machine"]["cores"] * figures["loops"]["float32"]["rate"]
    assert share["ratio"] == pytest.approx(figures["runs"]["local 60"]["extraction"] / bare)
    fits = figures["pca"]["fits"]
    pca = shown["PCA fit against scikit-learn in memory, 60 rows of 1280"]
    assert pca["ratio"] == pytest.approx(fits["ours"]["median"] / fits["sklearn"]["median"])
    again = shown["second run over unchanged images, after Spark's start"]
    assert again["ratio"] == pytest.approx(figures["second"]["wall"] - figures["second"]["seconds"]["start"], abs=1e-3)
    assert again["met"] == (again["ratio"] < 10)
    # Goals are set for other sizes, and the peers are not here.
    assert share["goal"] is None
    assert "not at hand" in shown["whole run, local against spark_pandas_udf, 60 images"]["reason"]


def test_parts_are_measured(figures: dict[str, Any]) -> None:
    loop, second, curve = figures["loops"]["float32"], figures["second"], figures["curve"]["local"]
    assert (loop["engine"], len(loop["passes"])) == ("openvino", 1)
    assert loop["rate"] > 0
    assert (second["images"], second["images_inferred"]) == (60, 0)
    assert [images for images, _ in curve["points"]] == [30, 60]
    assert curve["worst"] == pytest.approx(0, abs=1e-6)
    for name in ("ours", "sklearn", "sklearn_float32"):
        assert figures["pca"]["fits"][name]["angle"] < 1e-3
    assert figures["pca"]["fits"]["ours"]["angle"] < 1e-6


def test_the_page_tells_the_figures(bench: Path, figures: dict[str, Any]) -> None:
    page = (bench / "performance.md").read_text()
    assert page.startswith("# Performance\n\nMeasured on ")
    assert f"{figures['runs']['local 60']['wall']:.1f}" in page
    assert "the peers' scripts are not at hand" in page
    assert str(bench) not in page


def test_a_page_without_figures_says_how_to_measure(tmp_path: Path) -> None:
    absent = [f"--{name}={tmp_path / name}" for name in ("bench", "large", "gpu", "pack")]
    done = program("report.py", *absent, "--page", str(tmp_path / "page.md"))
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "page.md").read_text()
    assert page.count("Not measured; `make ") == page.count("\n## ") - 1


def test_what_packing_gains_is_measured_beside_what_must_not_change(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mission9[s3]'")
    from scripts.s3_server import find_swift

    if find_swift() is None:
        pytest.skip("swift is not installed, the S3 server of these tests: make s3-server")
    file = tmp_path / "pack.json"
    inputs = ["--images", str(small), "--weights", "demo", "--json", str(file)]
    done = program("pack.py", *inputs, "--count", "40", "--passes", "1")
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert (figures["count"], figures["objects"]["rows"], figures["pack"]["rows"]) == (40, 40, 40)
    assert figures["same_rows"]
    assert figures["largest_difference"] < 1e-4
    page = tmp_path / "page.md"
    assert program("report.py", f"--pack={file}", "--page", str(page)).returncode == 0
    assert "| pack | 1 |" in page.read_text()


def test_soak_looks_at_every_process_and_at_what_is_left(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    inputs = ["--images", str(small), "--weights", "demo", "--json", str(file), "--work", str(tmp_path)]
    done = program("soak.py", *inputs, "--count", "3000", "--runner", "local", "--components", "5")
    assert (done.returncode, done.stderr) == (0, "")
    soak = json.loads(file.read_text())
    assert (soak["images"], soak["featured"], soak["left_over"]) == (3000, 3000, [])
    seen = {kind for sample in soak["samples"] for kind in sample["memory"]}
    assert {"driver", "worker", "decoder"} <= seen
    assert max(sum(sample["files"].values()) for sample in soak["samples"]) > 20
    assert "| open files |" in done.stdout


def test_growth_is_what_there_is_late_over_what_there_was_early() -> None:
    seconds = {"list": 5.0, "start": 5.0, "extract": 100.0}
    samples = [
        Sample(at=at, memory={"driver": 1000, "worker": 10 * at}, files={"driver": 7}, temporary=0) for at in range(120)
    ]
    found = growth(samples, seconds)
    assert found["memory of driver"] == found["open files"] == 1
    assert found["memory of worker"] == pytest.approx(995 / 395, abs=1e-3)
    assert growth(samples[:5], seconds) == {}


def test_a_section_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- soak -->\nold\n<!-- /soak -->\nafter\n")
    put_section(page, "soak", ["new", "lines"])
    assert page.read_text() == "before\n<!-- soak -->\nnew\nlines\n<!-- /soak -->\nafter\n"
    with pytest.raises(ValueError, match="chaos"):
        put_section(page, "chaos", [])


def test_large_compares_two_sizes(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    inputs = ["--images", str(small), "--weights", "demo", "--json", str(file)]
    done = program("large.py", *inputs, "--count", "200", "--base", "80", "--runner", "local")
    assert (done.returncode, done.stderr) == (0, "")
    large = json.loads(file.read_text())["large"]
    first, last = large["runs"]
    assert [(run["images"], run["featured"]) for run in large["runs"]] == [(80, 80), (200, 200)]
    assert last["rate"] == pytest.approx(200 / last["wall"])
    assert large["ratio_of_rates"] == pytest.approx(last["rate"] / first["rate"])
    drivers = [run["memory"]["kinds"]["driver"]["largest"] for run in large["runs"]]
    assert large["ratios_of_peaks"]["driver"] == pytest.approx(drivers[1] / drivers[0])
    assert last["memory"]["kinds"]["worker"]["processes"] >= 1
    done = program("large.py", *inputs, "--listing", "300")
    assert (done.returncode, done.stderr) == (0, "")
    both = json.loads(file.read_text())
    assert both["large"] == large
    layouts = both["listings"]["layouts"]
    assert {name: found["images"] for name, found in layouts.items()} == {
        "folders of 5,000": 300,
        "one folder": 300,
        "bucket, prefixes of 5,000": 300,
        "bucket, one prefix": 300,
    }
    program("report.py", "--large", str(file), "--bench", "none", "--page", str(tmp_path / "page.md"))
    page = (tmp_path / "page.md").read_text()
    assert f"{last['wall']:.1f}" in page
    assert "| folders of 5,000 | 300 |" in page


def test_a_tree_holds_a_share_of_each_label(sample: Path, tmp_path: Path) -> None:
    paths = jpegs(sample)
    assert set(stratified(paths, 40)) < set(stratified(paths, 160)) < set(paths)
    part = stratified(paths, 160)
    assert sum(path.startswith("Training/Banana/") for path in part) in (7, 8)
    more = make_tree(sample, paths, 1000, tmp_path / "more")
    assert len(jpegs(more)) == 1000
    assert (more / paths[0]).samefile(sample / paths[0])
    flat = make_flat(sample, paths, 25, tmp_path / "flat", folder_size=10)
    assert [len(list(folder.iterdir())) for folder in sorted((flat / "Training").iterdir())] == [10, 10, 5]


@pytest.mark.parametrize(("value", "goal", "met"), [(3, ">= 3", True), (1, "> 1", False), (3.1, "<= 3", False)])
def test_goals(value: float, goal: str, met: bool) -> None:
    assert is_met(value, goal) == met


def test_the_cost_of_a_run_is_a_line() -> None:
    found = line([(100, 3.0), (200, 4.0), (300, 5.3)])
    assert found.per_image == pytest.approx(0.0115)
    assert found.fixed == pytest.approx(1.8, abs=0.01)
    assert 0 < found.worst < 0.2


def test_memory_is_told_by_kind_of_process() -> None:
    child = "data = bytes(range(256)) * 2**18; import time; time.sleep(2)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    memory = run_command([sys.executable, "-c", code]).memory
    assert set(memory.kinds) == {"driver", "worker"}
    assert memory.kinds["driver"].largest < 2**26 <= memory.kinds["worker"].largest <= memory.together


def test_fuzz_counts_every_input_and_makes_them_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- fuzz -->\nold\n<!-- /fuzz -->\nafter\n")
    files = ["--keep", str(tmp_path / "kept"), "--json", str(tmp_path / "fuzz.json"), "--page", str(page)]
    done = program("fuzz.py", "--inputs", "320", "--whole", "64", "--seed", "3", *files)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "fuzz.json").read_bytes())
    assert figures["faults"] == []
    assert figures["inputs"] == sum(count for kind in figures["formats"].values() for count in kind.values()) == 384
    for target, inputs in (("decode", 320), ("whole", 64)):
        facts = figures["targets"][target]
        assert facts["inputs"] == inputs == facts["pictures"] + sum(facts["reasons"].values())
        assert 0 < facts["pictures"] < inputs
    assert len(figures["formats"]) == 6
    text = page.read_text()
    assert text.startswith("before\n<!-- fuzz -->\n384 damaged images (seed 3)")
    assert text.endswith("<!-- /fuzz -->\nafter\n")
    assert "old" not in text
    made = set()
    for _ in range(2):
        assert program("fuzz.py", "--only", "7", "--seed", "3", *files).returncode == 0
        (kept,) = (tmp_path / "kept").iterdir()
        made.add(kept.read_bytes())
    assert len(made) == 1
