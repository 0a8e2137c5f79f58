"""Commands read one result while a run publishes another, and `verify` names files that belong to no result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.errors import OutputError
from mission9.results import verify as verify
from mission9.results.reader import Results, of_one_result
from mission9.storage.local.untrusted import read_file
from tests.conftest import InProcessRunner
from tests.support.finished import copy_of, with_changes, write_tree


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> RunConfig:
    folder = tmp_path_factory.mktemp("finished")
    settings = {"input": str(write_tree(folder / "images", pictures)), "output": str(folder / "out")}
    config = RunConfig(**settings, weights="demo", components=3, no_report=True)
    run(config, InProcessRunner())
    return config


@pytest.fixture
def config(finished: RunConfig, tmp_path: Path) -> RunConfig:
    return copy_of(finished, tmp_path)


def other_results(config: RunConfig) -> Iterator[None]:
    """Each time, another result takes the place of the one before."""
    for components in (2, 4, 2, 4, 2, 4, 2, 4):
        run(with_changes(config, components=components), InProcessRunner())
        yield


def test_what_is_read_of_two_results_is_read_again(config: RunConfig) -> None:
    others = other_results(config)

    def widths(results: Results) -> list[int]:
        first = results.scores("Training").pca.shape[1]
        if first == 3:
            next(others)
        return [first, results.scores("Test").pca.shape[1]]

    assert of_one_result(config.output, widths) == [2, 2]


def test_what_cannot_be_read_of_a_result_that_is_gone_is_read_of_the_next(config: RunConfig) -> None:
    others = other_results(config)

    def folders(results: Results) -> list[str]:
        if results.report.n_components == 3:
            next(others)
            raise OSError("gone")
        return results.splits

    assert of_one_result(config.output, folders) == ["Test", "Training"]


def test_one_after_the_other_is_told(config: RunConfig) -> None:
    others = other_results(config)
    with pytest.raises(OutputError, match="one result after the other takes its place"):
        of_one_result(config.output, lambda _: next(others))


def test_what_is_wrong_with_a_result_that_stands_is_told(config: RunConfig) -> None:
    def fail(_: Results) -> None:
        raise OSError("damaged")

    with pytest.raises(OSError, match="damaged"):
        of_one_result(config.output, fail)


def test_a_sound_result_is_not_called_damaged_while_another_takes_its_place(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, check = other_results(config), verify._check_checksums

    def at_a_bad_moment(*arguments: Any) -> Iterator[str]:
        problems = check(*arguments)
        if next(iter(calls), None) is None:
            calls.append("first")
            next(others)
        yield from problems

    calls: list[str] = []
    monkeypatch.setattr(verify, "_check_checksums", at_a_bad_moment)
    assert list(verify.verify_output(config.output)) == []
    assert calls == ["first"]


@pytest.mark.parametrize(
    ("source", "stale"),
    [
        ("features/part-00000.parquet", "features/part-00002.parquet"),
        ("training_pca/label=a/part-00000.parquet", "training_pca/label=a/part-00001.parquet"),
        ("training_pca/label=a/part-00000.parquet", "training_pca/label=gone/part-00000.parquet"),
        ("training_pca/label=a/part-00000.parquet", "validation_pca/label=a/part-00000.parquet"),
        ("training_pca_csv/part-00000.csv", "training_pca_csv/part-00001.csv"),
        ("rejects/part-00000.parquet", "rejects/part-00001.parquet"),
        ("features/part-00000.parquet", "pca_model/features.parquet"),
    ],
)
def test_files_that_are_not_of_the_result_are_named(
    source: str, stale: str, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(config.output)
    (output / stale).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(output / source, output / stale)
    assert main(["verify", config.output]) == 1
    assert f"{output / stale} is not of this result" in capsys.readouterr().out
    (output / stale).unlink()
    assert main(["verify", config.output]) == 0


@pytest.mark.parametrize("command", ["export", "project", "run"])
def test_a_model_is_of_one_result(
    command: str,
    config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Between a model's two files another result takes the place of its own."""
    others, calls = other_results(config), list[Path]()

    def at_a_bad_moment(file: Path, most: int) -> bytes:
        calls.append(file)
        if len(calls) == 1:
            next(others)
        return read_file(file, most)

    monkeypatch.setattr("mission9.pca.read_file", at_a_bad_moment)
    model, onnx, later = str(Path(config.output, "pca_model")), tmp_path / "model.onnx", str(tmp_path / "later")
    words = {
        "export": ["export", config.output, "--onnx", str(onnx)],
        "project": ["project", "--model", model, str(Path(config.input, "Test/a/0.jpg"))],
        "run": ["run", "--input", config.input, "--output", later, "--weights", "demo", "--pca-model", model],
    }
    assert main(words[command]) == 0
    assert len(calls) >= 2
    if command == "export":
        onnx_of = pytest.importorskip("onnx").load(onnx)
        assert onnx_of.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 2
    elif command == "project":
        assert len(json.loads(capsys.readouterr().out)["pca"]) == 2
    else:
        assert Results.of(later).report.n_components == 2


STRANGE: tuple[dict[str, Any], ...] = (
    {"config": ["input"]},
    {"config": None},
    {"config": {}},
    {"config": {"input": 5, "max_pixels": 10}},
    {"config": {"input": "images", "max_pixels": "many"}},
    {"weights": {}},
    {"weights": "demo"},
    {"splits": ["Training"]},
    {"splits": {"Training": 12}},
    {"splits": {"Training\nmission9: all is well\x1b[0m": 12}},
    {"splits": {"../x": {"listed": 1, "featured": 0, "rejected": 1}}},
    {"fitted_on": 7},
    {"n_components": "three"},
    {"n_components": -1},
    {"explained_variance_ratio": "all"},
    {"seconds": []},
    {"fingerprint": None},
    {"run_id": {}},
    {"skipped": {"a": "b"}},
    {"pseudonyms": []},
    {"engine": 1},
)


@pytest.mark.parametrize("command", ["report", "evaluate", "verify", "log", "erase"])
def test_what_no_run_wrote_is_told_in_a_line(
    command: str, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, ids = Path(config.output, "run.json"), tmp_path / "ids.txt"
    ids.write_text("Training/a/0.jpg")
    whole = json.loads(file.read_bytes())
    for strange in STRANGE:
        file.write_text(json.dumps(whole | strange))
        assert main([command, config.output, *(["--ids", str(ids)] if command == "erase" else [])]) == 2, strange
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"mission9: {file} is damaged or not written by mission9 (")
        assert line.endswith(f"): recreate it with mission9 run --output {config.output}")
    assert not Path(config.output, "_state/erased.json").exists()


STRANGE_MODELS: tuple[dict[str, Any], ...] = (
    *({"weights": "demo"}, {"weights": {"name": [], "sha256": ""}}, {"weights": None}, {"preprocess": 5}),
    *({"preprocess": "other"}, {"preprocess": []}, {"engine": "torch"}, {"engine": {"precision": 32}}),
    *({"n_samples": -1}, {"n_samples": []}, {"format": {}}, {"sha256": 5}),
)


@pytest.mark.parametrize("command", ["export", "project"])
def test_a_model_that_no_run_wrote_is_told_in_a_line(
    command: str, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(config.output, "pca_model/pca.json")
    words = {
        "export": ["export", config.output, "--onnx", str(tmp_path / "model.onnx")],
        "project": ["project", "--model", str(file.parent), str(Path(config.input, "Test/a/0.jpg"))],
    }
    whole = json.loads(file.read_bytes())
    Path(config.output, "run.json").write_text(json.dumps({"config": []}))  # which neither reads
    for strange in STRANGE_MODELS:
        file.write_text(json.dumps(whole | strange))
        assert main(words[command]) == 2, strange
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("mission9: ")
        assert "run again" in line
    file.write_text(json.dumps(whole))
    assert main(words[command]) == 0
