"""Messages about small problems: each is one complete line, with advice that can be followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from mission9 import RunConfig
from mission9.cli import main
from mission9.cli.make import _print_report
from mission9.config import found_input
from mission9.errors import SetupError
from mission9.estimate.instances import note
from mission9.models import engines
from mission9.models.engines import choose_engine
from mission9.output.open import output_at
from mission9.output.run_report import Report
from tests.conftest import REPOSITORY

DEFAULT = "dataset/fruits-360_dataset/fruits-360"


def test_the_variance_is_of_something_with_a_given_model_too(capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "run_id": "x",
        "fingerprint": "x",
        "weights": {},
        "engine": {},
        "config": {"output": "out", "no_report": True},
    }
    report = TypeAdapter(Report).validate_python(given | {"explained_variance_ratio": [0.96], "n_components": 1})
    _print_report(report)
    told = "1 components keep 96.0% of the variance of the images that the given model was fitted on\n"
    assert told in capsys.readouterr().out


def test_deploy_advises_no_option_that_estimate_alone_has() -> None:
    assert "--price" not in note()


def test_without_any_engine_that_of_the_cpu_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_installed", lambda _: False)
    with pytest.raises(SetupError, match=r"no engine is installed: pip install 'mission9\[openvino\]'"):
        choose_engine(device="cpu")
    with pytest.raises(SetupError, match=r"torch is not installed: pip install 'mission9\[torch\]'"):
        choose_engine(device="cpu", engine="torch")
    monkeypatch.setattr(engines, "_installed", lambda name: name == "torch")
    assert choose_engine(device="cpu").engine == "torch"


def test_subsets_are_listed_by_their_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = ["1", "2.5", "5", "10", "100"]
    for share in reversed(shares):
        (tmp_path / f"b-{share}pct").mkdir()
    (tmp_path / "a-50pct").mkdir()
    assert main(["subset", "--output", str(tmp_path), "--list"]) == 0
    names = [line.rpartition("/")[2].partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["a-50pct", *(f"b-{share}pct" for share in shares)]


def test_verify_advises_nothing_that_replaces_what_save_pca_results_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with output_at(str(tmp_path / "out")).open(overwrite=False) as output:
        (output.work / "all_pca").mkdir(parents=True)
        output.publish()
    assert main(["verify", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "holds tables that save_pca_results wrote" in told
    assert "run again" not in told
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert "holds tables" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "folders",
    [
        ["fruits-360_dataset/fruits-360"],
        ["fruits-360_100x100/fruits-360", "fruits-360_original-size/fruits-360-original-size"],
        ["fruits-360_dataset/fruits-360", "fruits-360-original-size/fruits-360-original-size"],
        ["fruits-360_100x100/fruits-360", "fruits-360_3-body-problem/fruits-360-3-body-problem"],
    ],
)
def test_an_archive_that_unzip_put_one_level_too_deep_is_found(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunConfig().input == DEFAULT
    for folder in folders:
        for split in ("Training", "Test"):
            os.makedirs(f"dataset/fruits-360_dataset/{folder}/{split}/a")
    assert RunConfig().input == f"dataset/fruits-360_dataset/{folders[0]}"
    assert found_input("elsewhere") == "elsewhere"
    os.makedirs("dataset/fruits-360_dataset/one/two/Training")
    os.makedirs("dataset/fruits-360_dataset/one/two/Test")
    assert RunConfig().input == (DEFAULT if "100x100" not in folders[0] else f"dataset/fruits-360_dataset/{folders[0]}")
    os.makedirs(DEFAULT)
    assert RunConfig().input == DEFAULT


def test_those_whose_work_this_stands_on_are_named() -> None:
    text = (REPOSITORY / "README.md").read_text()
    for page in ("www.kaggle.com/datasets/moltean/fruits", "pytorch.org/", "spark.apache.org/", "mlflow.org/"):
        assert f"(https://{page})" in text.partition("## Acknowledgments")[2]
