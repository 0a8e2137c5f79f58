"""`mission9 doctor`: what it finds on a machine as it is, and on one that lacks something."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mission9 import RunConfig
from mission9.cli import main
from mission9.doctor import checks
from mission9.doctor.checks import examine
from mission9.doctor.finding import Finding
from tests.support.cluster import free_port


def found(what: str, **settings: object) -> list[Finding]:
    config = RunConfig(**{"weights": "demo", "output": "out"} | settings)
    return [finding for finding in examine(config) if finding.what == what]


def test_a_machine_that_has_it_all(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["doctor", "--input", str(tree), "--output", str(tmp_path / "out"), "--weights", "demo", "--json"]
    assert main(command) == 0
    findings = {line["what"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert findings["input"]["found"].startswith("images: ")
    assert "12 of Training" in findings["input"]["found"]
    assert findings["weights"]["found"].startswith("demo, SHA-256 ")
    assert findings["engine"]["found"].endswith("float32")
    assert not (tmp_path / "out").exists()
    assert not [line for line in findings.values() if line["status"] == "problem"]


def test_problems_are_told_with_their_remedies_and_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--input", str(tmp_path / "nowhere"), "--weights", "demo"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("problem")]
    assert line.split(maxsplit=2)[2].startswith(f"there is no folder {tmp_path / 'nowhere'}")
    assert any(line.startswith("ok       python") for line in lines)


def test_the_images_to_fit_on_may_be_the_last_that_are_found(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.sources.listing.BATCH_ROWS", 2)
    (finding,) = found("input", input=str(tree))
    assert (finding.status, finding.found.partition(",")[0]) == ("ok", "images: 3 of Test")
    shutil.rmtree(tree / "Training")
    (finding,) = found("input", input=str(tree))
    assert (finding.status, finding.found.partition(":")[0]) == (
        "problem",
        "there are images of Test, but none of Training to fit the PCA on",
    )
    (finding,) = found("input", input=str(tree), pca_model=str(tmp_path / "pca_model"))
    assert (finding.status, finding.found.partition(",")[0]) == ("ok", "images: 2 of Test")


@pytest.mark.parametrize(("runner", "status"), [("auto", "warning"), ("spark", "problem"), ("local", "ok")])
def test_java_hidden(runner: str, status: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (finding,) = found("java", runner=runner)
    assert finding.status == status
    if runner != "local":
        assert finding.remedy.endswith("sudo apt-get install openjdk-17-jre-headless")


def test_packages_that_are_too_old_or_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"pyspark": "3.5.1", "pillow": "11.3.0", "pandas": "3.0.0", "pyarrow": "20.0"}
    monkeypatch.setattr(checks, "installed", there.get)
    problems = {finding.found: finding.remedy for finding in found("packages") if finding.status == "problem"}
    assert problems["pillow 11.3.0 is older than 12.3"] == "pip install 'pillow>=12.3'"
    assert "pyspark 3.5.1 is older than 3.5.7" in problems
    assert problems["pyspark 3.5.1 does not work with pandas 3"] == "pip install 'pandas<3'"


def test_a_gpu_that_the_driver_lists_and_torch_does_not_see(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "NVIDIA L4, 550.54"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "none")
    (finding,) = found("gpu")
    assert (finding.status, finding.found) == ("problem", "NVIDIA_VISIBLE_DEVICES hides every GPU")


def test_memory_that_the_machine_does_not_have() -> None:
    (finding,) = found("memory", driver_memory="900t")
    assert finding.status == "warning"
    assert finding.remedy.startswith("SPARK_DRIVER_MEMORY=2g")


def test_a_server_that_is_not_there() -> None:
    (finding,) = found("mlflow", mlflow=f"http://127.0.0.1:{free_port()}")
    assert finding.status == "problem"
    assert "mission9 log OUTPUT" in finding.remedy


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(checks, "_PORTS", {taken.getsockname()[1]: "MLflow"})
        (finding,) = found("ports")
        assert (finding.status, finding.found) == ("warning", f"{taken.getsockname()[1]} (MLflow) is in use")
    assert [finding.status for finding in found("ports")] == ["ok"]


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(checks, "IMAGENET_URL", f"http://127.0.0.1:{free_port()}/mobilenet_v2.pth")
    (finding,) = found("weights", weights="imagenet")
    assert finding.status == "problem"
    assert finding.remedy.endswith("on another machine and pass --weights FILE")
    (finding,) = found("weights", weights=str(tmp_path / "none.pth"))
    assert finding.status == "problem"


def test_an_output_that_cannot_be_written(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write anywhere
    (finding,) = found("output", input=str(tree), output=str(tmp_path / "out"))
    assert finding.status == "problem"


def test_an_output_that_a_run_would_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(output: str, **settings: object) -> tuple[str, str]:
        (finding,) = found("output", output=output, **settings)
        return finding.status, finding.found

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert status("file") == ("problem", f"the output {tmp_path / 'file'} is a file: pass a folder with --output")
    assert status("file/out") == ("problem", f"{tmp_path / 'file'} is a file, so no folder can be created in it")
    (tmp_path / "theirs").mkdir()
    assert status("theirs") == ("ok", "theirs can be written")
    assert status("theirs/out") == ("ok", "theirs/out can be created")
    (tmp_path / "theirs/notes.txt").touch()
    assert status("theirs")[0] == "problem"
    assert status("theirs", overwrite=True) == ("ok", "theirs can be written")


@pytest.mark.parametrize(
    ("uri", "status", "told"),
    [
        ("local", "ok", "stored in files, in the current folder"),
        ("sqlite:///runs.db", "ok", "stored in files, in the current folder"),
        ("postgresql://us:pw@db/x", "warning", "postgresql://***@db/x is neither a server nor local: not tested"),
        ("databricks", "warning", "databricks is neither a server nor local: not tested"),
    ],
)
def test_only_what_is_kept_in_files_is_called_so(uri: str, status: str, told: str) -> None:
    (finding,) = found("mlflow", mlflow=uri)
    assert (finding.status, finding.found) == (status, told)


@pytest.mark.parametrize(
    ("size", "decode", "is_due"), [(1200, "exact", True), (1200, "fast", False), (100, "exact", False)]
)
def test_fast_decoding_is_hinted_at_for_large_jpegs(size: int, decode: str, is_due: bool, tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "images" / "a" / "0.jpg", quality=95)
    findings = found("input", input=str(tmp_path / "images"), decode=decode)
    assert any("--decode fast" in finding.found for finding in findings) == is_due
