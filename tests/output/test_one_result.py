"""Commands read one result while a run publishes another, and `verify` names files that belong to no result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.errors import OutputError
from mission9.results import Results, of_one_result
from mission9.stages import verify_output as verify
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
        if results.report["n_components"] == 3:
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
