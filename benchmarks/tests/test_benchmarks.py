"""The programs of benchmarks/ on few generated pictures, without Spark and the peers.

What they run in processes of their own, they run in this one here, but for what binds itself to a core, and the soak.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.measure import child, runs, scale
from benchmarks.measure.child import Done, run_command
from benchmarks.measure.memory import MemoryWatch, Sample
from benchmarks.measure.ratios import is_met
from benchmarks.measure.results import line
from benchmarks.measure.trees import jpegs, make_flat, make_tree, stratified
from benchmarks.parts.soak import growth
from benchmarks.report import FIGURES, PAGE, RELIABILITY, read, render_part
from tests.conftest import REPOSITORY
from tests.s3.moto import KEYS, MotoBucket, make_bucket, moto_server
from threadpoolctl import threadpool_limits

from mission9.cli import main
from mission9.sources import open_source

RUN = {"list", "start", "extract", "fit", "project", "save_model"}
BOUND = ("benchmarks.measure.engine_loop", "benchmarks.measure.isolation")


def process(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program in this process, with all that it runs."""
    module = importlib.import_module(f"benchmarks.{name.removesuffix('.py')}")
    # On one thread: those of a PCA of few rows wait for each other on a busy machine, at the cost of it all.
    with pytest.MonkeyPatch.context() as patch, _heard() as (said, errors), threadpool_limits(1):
        for place in (child, runs):
            patch.setattr(place, "run_command", run_here)
        patch.setattr(sys, "argv", [name, *arguments])
        code = module.main()
    return subprocess.CompletedProcess([name, *arguments], code, said.getvalue(), errors.getvalue())


def run_here(
    command: Sequence[str],
    *,
    cwd: Path = REPOSITORY,
    environment: Mapping[str, str] | None = None,
    sampling: float = 1.0,
    temporary: Path | None = None,
) -> Done:
    """`python -m mission9`, or a program among the benchmarks, in the place of `run_command`.

    Without a runner, since this process does few images itself.
    """
    _, dash_m, module, *words = command
    assert (dash_m, cwd) == ("-m", REPOSITORY)
    if module in BOUND:
        return run_command(command, environment=environment)
    if "--runner" in words:
        at = words.index("--runner")
        del words[at : at + 2]
    open_source.cache_clear()  # the address of a bucket's server may be another one
    with pytest.MonkeyPatch.context() as patch, _heard() as (said, errors):
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [module, *words])
        start = time.perf_counter()
        watch = MemoryWatch(os.getpid(), sampling, temporary)
        watch.start()
        try:
            code = main(words) if module == "mission9" else importlib.import_module(module).main()
        finally:
            watch._sample()  # what is done in less than the time between two samples too
            memory = watch.finish()
    wall = round(time.perf_counter() - start, 3)
    return Done(code=code or 0, wall=wall, output=said.getvalue(), errors=errors.getvalue(), memory=memory)


@contextlib.contextmanager
def _heard() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """The printed output, and the output on standard error."""
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        yield said, errors


@pytest.fixture(scope="module")
def small(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(sample, jpegs(sample), 80, tmp_path_factory.mktemp("small") / "fruits")


@pytest.fixture(scope="module")
def bench(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figures of a short sitting, and the page made of them beside it."""
    folder = tmp_path_factory.mktemp("bench")
    parts = ["loop", "isolation", "local", "second", "pca", "curve", "pandas-udf", "large", "listing"]
    sizes = ["--count", "60", "--few", "30", "--sizes", "30", "--base", "30"]
    quick = ["--runners", "local", "--precisions", "float32", "--components", "5", "--repeats", "1"]
    files = ["--json", str(folder / "figures.json"), "--page", str(folder / "page.md"), "--peers", str(folder)]
    inputs = ["--images", str(small), "--weights", "demo", "--loop-seconds", "0.2"]
    done = program("bench.py", *inputs, *files, *quick, *sizes, "--only", *parts, "--", "--components", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "extraction, local against spark_pandas_udf" in done.stdout
    return folder


@pytest.fixture(scope="module")
def figures(bench: Path) -> dict[str, Any]:
    return read(bench / "figures.json")


@pytest.mark.slow
def test_runs_are_whole_and_right(figures: dict[str, Any]) -> None:
    assert set(figures["bench"]["runs"]) == {"local 60", "local 30"}
    for run in figures["bench"]["runs"].values():
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


@pytest.mark.slow
def test_ratios_are_those_of_the_figures(figures: dict[str, Any]) -> None:
    bench = figures["bench"]
    shown = {ratio["figure"]: ratio for ratio in bench["ratios"]}
    for ratio in shown.values():
        assert (ratio["ratio"] is None) == bool(ratio["reason"])
        assert (ratio["met"] is None) == (ratio["goal"] is None or ratio["ratio"] is None)
    share = shown["extraction, local against all cores at the bare loop's rate, 60 images"]
    bare = bench["machine"]["cores"] * bench["loops"]["float32"]["rate"]
    assert share["ratio"] == pytest.approx(bench["runs"]["local 60"]["extraction"] / bare)
    pca = shown["PCA fit against scikit-learn in memory, 60 rows of 1280"]
    assert pca["ratio"] == pytest.approx(
        bench["pca"]["fits"]["ours"]["median"] / bench["pca"]["fits"]["sklearn"]["median"]
    )
    again = shown["second run over unchanged images, after Spark's start"]
    assert again["ratio"] == pytest.approx(bench["second"]["wall"] - bench["second"]["seconds"]["start"], abs=1e-3)
    assert again["met"] == (again["ratio"] < 10)
    # Goals are set for other sizes, and the peers are not here.
    assert share["goal"] is None
    assert "not at hand" in shown["whole run, local against spark_pandas_udf, 60 images"]["reason"]


@pytest.mark.slow
def test_parts_are_measured(figures: dict[str, Any]) -> None:
    bench = figures["bench"]
    loop, second, curve = bench["loops"]["float32"], bench["second"], bench["curve"]["local"]
    assert (loop["engine"], len(loop["passes"])) == ("openvino", 1)
    assert min(loop["rate"], *bench["isolation"]["apart"], *bench["isolation"]["within"]) > 0
    assert (second["images"], second["images_inferred"]) == (60, 0)
    assert [images for images, _ in curve["points"]] == [30, 60]
    for name in ("ours", "sklearn", "sklearn_float32"):
        assert bench["pca"]["fits"][name]["angle"] < (1e-6 if name == "ours" else 1e-3)
    large = figures["large"]
    first, last = large["runs"]
    assert [(run["images"], run["featured"]) for run in large["runs"]] == [(30, 30), (60, 60)]
    assert last["rate"] == pytest.approx(60 / last["wall"])
    assert large["ratio_of_rates"] == pytest.approx(last["rate"] / first["rate"])
    drivers = [run["memory"]["kinds"]["driver"]["largest"] for run in large["runs"]]
    assert large["ratios_of_peaks"]["driver"] == pytest.approx(drivers[1] / drivers[0])
    layouts = figures["listing"]["layouts"]
    assert len(layouts) == 4
    assert {found["images"] for found in layouts.values()} == {60}


@pytest.mark.slow
def test_the_page_is_the_rendering_of_its_figures(bench: Path, figures: dict[str, Any]) -> None:
    page = (bench / "page.md").read_text()
    assert page == render_part("performance", figures)
    assert page.startswith("# Performance\n\nMeasured on ")
    assert f"| {figures['bench']['runs']['local 60']['wall']:.1f} |" in page
    assert f"| 60 | {figures['large']['runs'][1]['wall']:.1f} |" in page
    assert "| folders of 5,000 | 60 |" in page
    assert "the peers' scripts are not at hand" in page
    assert str(bench) not in page


def test_the_pages_of_the_docs_are_the_rendering_of_the_figures() -> None:
    figures = read(FIGURES)
    assert PAGE.read_text() == render_part("performance", figures)
    assert f"<!-- soak -->\n{render_part('soak', figures)}<!-- /soak -->" in RELIABILITY.read_text()


def test_a_page_without_figures_says_how_to_measure(tmp_path: Path) -> None:
    done = process("report.py", f"--figures={tmp_path / 'none'}", "--page", str(tmp_path / "page.md"))
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "page.md").read_text()
    assert page.count("Not measured; `make ") == page.count("\n## ") - 2  # how to reproduce, and earlier sittings


@dataclass(frozen=True)
class Emulated:
    """A server of S3 as `scripts.s3_server` has it, of moto, and with a bucket as the product asks for."""

    bucket: MotoBucket

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": self.bucket.url, "AWS_REGION": "eu-west-1"}

    def make_bucket(self, name: str) -> None:
        assert name == self.bucket.name

    def upload(self, folder: Path, bucket: str, prefix: str) -> int:
        files, client = [file for file in folder.rglob("*") if file.is_file()], self.bucket.client
        for file in files:
            client.put_object(Bucket=bucket, Key=f"{prefix}/{file.relative_to(folder)}", Body=file.read_bytes())
        return len(files)


@pytest.mark.slow
def test_what_packing_gains_is_measured_beside_what_must_not_change(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mission9[s3]'")
    pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
    monkeypatch.setattr("mission9.storage.s3.lease._SETTLE", 0)  # nobody else makes the lock
    files = ["--json", str(tmp_path / "figures.json"), "--page", str(tmp_path / "page.md")]
    inputs = ["--images", str(small), "--weights", "demo", "--count", "40", "--repeats", "1"]
    with moto_server() as url:
        bucket = make_bucket(url)
        monkeypatch.setattr("benchmarks.parts.pack.BUCKET", bucket.name)
        monkeypatch.setattr("benchmarks.parts.pack.s3_server", lambda _: contextlib.nullcontext(Emulated(bucket)))
        done = program("bench.py", *inputs, *files, "--only", "pack")
    assert done.returncode == 0, done.stderr
    figures = read(tmp_path / "figures.json")["pack"]
    assert (figures["count"], figures["objects"]["rows"], figures["pack"]["rows"]) == (40, 40, 40)
    assert figures["same_rows"]
    assert figures["largest_difference"] < 1e-4
    assert "| pack | 1 |" in done.stdout
    assert done.stdout.count("| pack | 1 |") == (tmp_path / "page.md").read_text().count("| pack | 1 |")


@pytest.mark.slow
def test_soak_looks_at_every_process_and_at_what_is_left(small: Path, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "figures.json"), "--work", str(tmp_path)]
    inputs = ["--images", str(small), "--weights", "demo", "--count", "400", "--only", "soak"]
    done = process("bench.py", *inputs, *files, "--", "--runner", "local", "--workers", "2", "--components", "5")
    assert (done.returncode, done.stderr) == (0, "")
    soak = read(tmp_path / "figures.json")["soak"]
    assert (soak["images"], soak["featured"], soak["left_over"]) == (400, 400, [])
    assert {f"memory of {kind}" for kind in ("driver", "worker", "decoder")} <= soak["most"].keys()
    assert soak["most"]["open files"] > 20
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


def test_memory_is_told_by_kind_of_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, sample = tmp_path / "seen", MemoryWatch._sample

    def look(watch: MemoryWatch) -> None:
        sample(watch)
        if max(watch._largest.values(), default=0) >= 2**26:
            seen.touch()

    monkeypatch.setattr(MemoryWatch, "_sample", look)
    holds = "import os, sys, time; data = bytes(range(256)) * 2**18\n"
    holds += "while not os.path.exists(sys.argv[1]): time.sleep(0.05)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}, sys.argv[1]])"
    memory = run_command([sys.executable, "-c", code, str(seen)], sampling=0.1).memory
    assert set(memory.kinds) == {"driver", "worker"}
    assert memory.kinds["driver"].largest < 2**26 <= memory.kinds["worker"].largest <= memory.together


@pytest.mark.slow
def test_fuzz_counts_every_input_and_makes_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fuzz.ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
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
    assert len(figures["formats"]) == 8
    text = page.read_text()
    assert text.startswith("before\n<!-- fuzz -->\n384 damaged images (seed 3)")
    assert text.endswith("<!-- /fuzz -->\nafter\n")
    assert "old" not in text
    made = set()
    for run in (program, process):  # in another process too
        assert run("fuzz.py", "--only", "7", "--seed", "3", *files).returncode == 0
        (kept,) = (tmp_path / "kept").iterdir()
        made.add(kept.read_bytes())
        kept.unlink()
    assert len(made) == 1


def test_scale_measures_every_stage_of_two_runs_and_an_erasure(tmp_path: Path) -> None:
    stages = scale.measure(600, 3, tmp_path)
    run = ["list and plan", "extract", "compact and collect", "fit", "project and save", "publish"]
    assert [stage.name for stage in stages] == [*run, *(f"again: {name}" for name in run), "erase 10"]
    files = {stage.name: stage.files for stage in stages}
    assert files["extract"] - files["list and plan"] == 2 * 3  # features and markers
    assert files["again: extract"] == files["again: list and plan"]
    assert all(stage.peak > 0 for stage in stages)
