"""Python's classes check settings as the command line does: the same words, places, and environment."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from mission9 import MobileNetV2Extractor, RunConfig, SparkImagePipeline
from mission9.cli.entry import main
from mission9.errors import ConfigError, ImageError, SetupError, WeightsError
from mission9.models.weights import load_weights

WRONG: list[tuple[str, Any]] = [
    ("preprocess", "Crop"),
    ("device", "gpu"),
    ("batch_size", "0"),
    ("batch_size", "many"),
    ("precision", "fp16"),
    ("engine", "onnx"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_the_words_are_those_of_the_command_line(name: str, value: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", f"--{name.replace('_', '-')}", value]) == 2
    told = capfd.readouterr().err.strip().removeprefix("mission9: ")
    kinds: list[Callable[..., object]] = [MobileNetV2Extractor, SparkImagePipeline, RunConfig]
    for kind in kinds:
        with pytest.raises(ConfigError) as caught:
            kind(**{name: value})
        assert str(caught.value) == told


def test_paths_are_taken_where_places_are(tmp_path: Path) -> None:
    names = ("input", "output", "weights", "pca_model", "estimate", "pseudonymise", "encrypt_key")
    config = RunConfig(**{name: tmp_path / name for name in names})
    assert [getattr(config, name) for name in names] == [str(tmp_path / name) for name in names]
    with pytest.raises(ConfigError, match="s3:/bucket/x is a URL turned into a path"):
        RunConfig(input=Path("s3://bucket/x"))


def test_settings_are_given_in_one_way() -> None:
    wrong: list[tuple[Any, dict[str, Any]]] = [(RunConfig(), {"weights": "demo"}), ({"weights": "demo"}, {})]
    for config, settings in wrong:
        with pytest.raises(ConfigError, match="give a RunConfig, or its settings by name"):
            SparkImagePipeline(config, **settings)


def test_the_steps_take_paths_and_check_them(spark: SparkSession, tree: Path) -> None:
    pipeline = SparkImagePipeline(weights="demo")
    assert pipeline.load_images(tree).count() == 15
    with pytest.raises(ConfigError, match="not UTF-8"):
        pipeline.load_images(os.fsdecode(b"\xff"))
    with pytest.raises(ConfigError, match="is a URL turned into a path"):
        pipeline.load_images(Path("s3://bucket/x"))
    with pytest.raises(ConfigError, match="only local folders and s3:// URLs"):
        pipeline.save_pca_results(spark.range(1), "gs://bucket/x")


def test_the_environment_counts_for_the_extractor(
    monkeypatch: pytest.MonkeyPatch, pictures: list[bytes], tmp_path: Path
) -> None:
    plain = MobileNetV2Extractor(weights="demo").extract(pictures[0])
    monkeypatch.setenv("MISSION9_WEIGHTS", "demo")
    monkeypatch.setenv("MISSION9_PREPROCESS", "crop")
    monkeypatch.setenv("MISSION9_BATCH_SIZE", "7")
    extractor = MobileNetV2Extractor()
    assert (extractor.weights.name, extractor.preprocess, extractor.spec.batch_size) == ("demo", "crop", 7)
    again = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_allclose(again.extract(pictures[0]), extractor.extract(pictures[0]), rtol=1e-4, atol=1e-5)
    given = MobileNetV2Extractor(preprocess="stretch")
    np.testing.assert_allclose(given.extract(pictures[0]), plain, rtol=1e-4, atol=1e-5)
    monkeypatch.setenv("MISSION9_MAX_PIXELS", "100")
    with pytest.raises(ImageError, match="exceeds the limit of 100 pixels"):
        MobileNetV2Extractor().extract(pictures[0])
    monkeypatch.setenv("MISSION9_WEIGHTS", str(tmp_path / "none.pth"))
    with pytest.raises(WeightsError, match="there is no weights file"):
        MobileNetV2Extractor()
    assert load_weights(Path("demo")).name == "demo"


def test_a_rejection_pickles() -> None:
    again = pickle.loads(pickle.dumps(ImageError("empty", "it holds nothing")))
    assert (again.reason, str(again)) == ("empty", "it holds nothing")


@pytest.mark.parametrize("master", [None, "local", "local[2]", "local[*]", "local[*,4]"])
def test_a_gpu_that_is_not_there_is_told_before_anything_starts(
    master: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # weights are not there
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SetupError, match="there is no GPU to use: NVIDIA_VISIBLE_DEVICES hides every GPU; --device"):
        SparkImagePipeline(device="cuda", master=master)
    with pytest.raises(SetupError, match="there is no GPU to use"):
        MobileNetV2Extractor(device="cuda")


@pytest.mark.parametrize("master", ["local[0]", "local[0,4]", "local[2,0]", "local[]", "local[all]"])
def test_a_master_without_threads_is_refused(master: str) -> None:
    with pytest.raises(ConfigError, match=r"give local\[N\]"):
        RunConfig(master=master)
