"""The command line as a user sees it: exit codes, one clear line for a mistake, and results on standard output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from pyspark.sql import SparkSession

from mission9 import RunConfig, __version__, run
from mission9.cli import main
from mission9.models.weights import Tensors
from tests.conftest import InProcessRunner
from tests.support import held_up
from tests.support.finished import copy_tree, write_tree


@pytest.fixture
def arguments(tree: Path, tmp_path: Path) -> list[str]:
    return ["--input", str(tree), "--output", str(tmp_path / "out"), "--weights", "demo", "--components", "3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> RunConfig:
    """A finished run of the same images."""
    folder = tmp_path_factory.mktemp("made")
    tree = write_tree(folder / "images", pictures)
    settings = {"input": str(tree), "output": str(folder / "out"), "weights": "demo", "components": 3}
    config = RunConfig(**settings, no_report=True)
    run(config, InProcessRunner())
    return config


def told(capsys: pytest.CaptureFixture[str], code: int, *command: str) -> str:
    """The output of a command that fails with `code`: one line, no traceback."""
    assert main(command) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("mission9: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Training/LABEL/" in text  # angle brackets would vanish as markup
    for option in ("--input", "--output", "--weights", "--preprocess", "--components", "--device", "--engine"):
        assert option in text
    for option in (
        "--precision",
        "--batch-size",
        "--master",
        "--max-reject-rate",
        "--config",
        "--overwrite",
        "--no-report",
    ):
        assert option in text


def test_a_run_prints_its_counts_and_where_things_are(
    arguments: list[str], spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments, "--runner", "spark"]) == 0
    out = capsys.readouterr().out
    assert "Training" in out
    assert "12 featured" in out
    assert "3 components keep" in out
    assert f"results in {arguments[3]};" in out
    assert f"to look at in a browser: {arguments[3]}/report.html\n" in out


def test_project_prints_a_json_line_for_each_image(
    made: RunConfig, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_text("bad")
    images = [str(tree / "Test/a/0.jpg"), str(tmp_path / "bad.jpg"), str(tree / "Test/a/1.jpg")]
    assert main(["project", "--model", f"{made.output}/pca_model", *images]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == images
    assert len(lines[0]["pca"]) == len(lines[2]["pca"]) == 3
    assert lines[1]["error"] == "not_an_image"
    assert main(["project", "--model", f"{made.output}/pca_model", images[0]]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--input", "nowhere"], "there is no folder nowhere"),
        (["--input", __file__], "is a file"),
        (["--components", "0"], "1280 features"),
        (["--components", "-1"], "1280 features"),
        (["--components", "2000"], "1280 features"),
        (["--components", "1.5"], "between 0 and 1"),
        (["--components", "13"], "13 components of 12 images: give 1 to 12"),
        (["--components", "many"], "components"),
        (["--weights", "nowhere.pth"], "no weights file nowhere.pth"),
        (["--output", __file__], "is a file"),
        (["--output", os.path.dirname(__file__)], "not written by mission9"),
        (["--config", "nowhere.toml"], "no settings file nowhere.toml"),
        (["--max-reject-rate", "7"], "max_reject_rate"),
        (["--preprocess", "zoom"], "preprocess"),
        (["--nonsense", "1"], "--nonsense"),
        (["--components", "1.0"], "between 0 and 1"),
        (["--max-pixels", "1000000000"], "max_pixels"),
        (["--driver-memory", "512"], "driver_memory"),
        (["--output", "x" * 300], "cannot be written: File name too long"),
        (["--input", "caf\udce9"], "not UTF-8"),
        (["--input", "ftp://me:secret@host/images"], "credentials are not allowed"),
        (["--input", "https://host/images"], "on a web server"),
        (["--output", "gs://bucket/results"], "only local folders and s3:// URLs"),
        (["--engine", "openvino", "--device", "cuda"], "openvino computes on the CPU"),
    ],
)
def test_mistakes_are_told_in_a_line_with_exit_code_2(
    arguments: list[str], change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = dict(zip(arguments[::2], arguments[1::2], strict=True)) | dict(zip(change[::2], change[1::2], strict=True))
    assert message in told(capsys, 2, "run", *(word for pair in given.items() for word in pair))


def test_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "no images" in told(capsys, 2, "run", "--input", str(tmp_path / "empty"), "--weights", "demo")


def test_only_undecodable_images_have_exit_code_3(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad" / "a").mkdir(parents=True)
    for n in range(4):
        (tmp_path / "bad" / "a" / f"{n}.jpg").write_text("no image")
    line = told(capsys, 3, "run", *arguments[2:], "--input", str(tmp_path / "bad"))
    assert "4 of 4 images were rejected (4 not_an_image)" in line


@pytest.mark.parametrize("kind", ["truncated", "another network", "malicious"])
def test_weights_that_cannot_be_used(
    kind: str, arguments: list[str], tmp_path: Path, demo_tensors: Tensors, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    path, canary = tmp_path / "w.pth", tmp_path / "canary"
    if kind == "truncated":
        torch.save({name: torch.from_numpy(array.copy()) for name, array in demo_tensors.items()}, path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "another network":
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    else:
        path.write_bytes(b"cos\nmkdir\n(V" + str(canary).encode() + b"\ntR.")
    line = told(capsys, 2, "run", *arguments[:4], "--weights", str(path))
    wanted = {"truncated": "is damaged", "another network": "not MobileNetV2's", "malicious": "were not run"}
    assert wanted[kind] in line
    assert "weights_only" not in line  # torch's advice to load it all the same is not passed on
    assert not canary.exists()
    assert not os.path.exists(arguments[3])


def test_imagenet_without_network_says_how_to_give_a_file(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    line = told(capsys, 1, "run", *arguments[:4], "--weights", "imagenet")
    assert "--weights mobilenet_v2-7ebf99e0.pth" in line


@pytest.mark.slow
def test_a_master_that_is_none_is_told_without_a_stack(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "mission9", "run", *arguments, "--runner", "spark", "--master", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Spark does not start on nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.exists(arguments[3])


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_cleanly_and_the_last_line_says_how_to_go_on(
    number: signal.Signals, code: int, arguments: list[str], tmp_path: Path
) -> None:
    command = held_up.command(held_up.WITHOUT_END, "run", *arguments, "--runner", "spark", shard_images=2)

    def markers() -> list[Path]:
        assert process.poll() is None, said.read_text()
        return list((tmp_path / "out").glob("_state/shards/*/[0-9a-f]*.json"))

    said = tmp_path / "said"
    with said.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        held_up.wait_until(markers)  # the workers are in the middle of it
        process.send_signal(number)
        assert process.wait() == code
    assert said.read_text().splitlines()[-1] == "mission9: interrupted; rerun the same command to resume"
    assert "Traceback" not in said.read_text()
    assert not os.path.exists(tmp_path / "out" / "run.json")


def without_java(tmp_path: Path) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "JAVA_HOME"} | {"PATH": str(tmp_path)}


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no Spark session yet, whatever tests came before in this one."""
    monkeypatch.setattr("mission9.runners.spark_session.running_session", lambda: None)


def test_no_java(
    arguments: list[str],
    tmp_path: Path,
    no_session: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    line = told(capsys, 1, "run", *arguments, "--runner", "spark")
    assert "Spark needs Java 17 or newer" in line
    assert "apt-get install openjdk-17-jre-headless" in line


@pytest.mark.slow
def test_without_java_worker_processes_do_the_work(arguments: list[str], tmp_path: Path) -> None:
    """The command itself, of so many images that this process alone would take too long for them."""
    command = [sys.executable, "-c", MANY, "run", *arguments, "--no-report", "--workers", "1"]
    done = subprocess.run(command, env=without_java(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Spark needs Java 17 .*: \d+ worker processes, without Spark$", done.stderr, re.MULTILINE)
    assert json.loads(Path(arguments[3], "run.json").read_text())["images_inferred"] == 15


MANY = """
from mission9.pipeline import plan
plan.FEW_IMAGES = 1
from mission9.cli import program
program()
"""


READING_STILL = """
import io, sys, time
import pyarrow.csv
from mission9.cli import program

class Slow(io.BytesIO):
    def read(self, size=-1):
        time.sleep(0.05)
        return super().read(size)

options = pyarrow.csv.ReadOptions(block_size=1000)
pyarrow.csv.open_csv(Slow(b"1,2,3,4\\n" * 5000), read_options=options).read_next_batch()
program()
"""


def test_a_thread_of_arrow_that_reads_still_does_not_abort_the_end() -> None:
    command = [sys.executable, "-c", READING_STILL, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_an_old_java_is_named(
    arguments: list[str],
    tmp_path: Path,
    no_session: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert f"{old} is Java 8" in told(capsys, 1, "run", *arguments, "--runner", "spark")


def test_a_model_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no PCA model" in told(capsys, 2, "project", "--model", str(tmp_path), "x.jpg")


def test_a_model_with_other_weights_is_refused(
    made: RunConfig, tree: Path, tmp_path: Path, demo_tensors: Tensors, capsys: pytest.CaptureFixture[str]
) -> None:
    model = copy_tree(Path(made.output, "pca_model"), tmp_path / "pca_model")
    other = {name: array + np.float32(0.1) for name, array in demo_tensors.items()}
    safetensors.numpy.save_file(other, f"{model}/weights.safetensors")
    assert "does not hold the weights" in told(capsys, 2, "project", "--model", str(model), str(tree / "Test/a/0.jpg"))
