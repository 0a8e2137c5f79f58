"""The notebook: committed as it ran, free of the machine it ran on, and it runs; and what it takes of the library."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from PIL import Image

from mission9.datasets.demo import VARIETIES
from mission9.errors import ConfigError, InputError, OutputError
from mission9.notebook import MAX_NAMED, SAMPLE, label_map, open_pictures, read_config
from mission9.results.reader import Results
from tests.conftest import REPOSITORY
from tests.support.finished import copy_tree, write_fruits
from tests.support.notebooks import NOTEBOOK, execute, read

FRUITS = "dataset/fruits-360_dataset/fruits-360"


def test_it_is_committed_with_what_it_gave() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert len(text) < 1_000_000
    assert not [word for word in ("/home/", "/root", "/tmp", str(REPOSITORY)) if word in text]


@pytest.mark.spark
@pytest.mark.slow
def test_it_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the drawn sample; results, and runs of MLflow, are where the repository has them."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    imported = "from src.feature_extractor import MobileNetV2Extractor as original"
    told = execute(tmp_path, more=[imported, "original is MobileNetV2Extractor"])
    assert "components keep" in told
    assert told.endswith("{'text/plain': 'True'}")
    assert (tmp_path / "data" / "Results" / "run.json").exists()
    assert (tmp_path / SAMPLE / "Training" / "Banana").exists()
    assert not (tmp_path / "dataset").exists()
    assert (tmp_path / "mlflow.db").exists()
    assert list((tmp_path / "mlruns").iterdir())


@pytest.mark.spark
@pytest.mark.slow
def test_it_runs_as_if_on_databricks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    monkeypatch.setenv("NOTEBOOK_FOLDER", str(tmp_path / "disk"))
    write_fruits(tmp_path / "disk" / FRUITS, varieties=len(VARIETIES), training=4, test=2)
    told = execute(tmp_path, {"DATASET_PATH": FRUITS, "OUTPUT_PATH": "data/Results", "WEIGHTS": "demo"})
    assert "components keep" in told
    assert (tmp_path / "disk" / "data" / "Results" / "run.json").exists()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_two_keys_are_enough_and_the_environment_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_DRIVER_MEMORY", "3g")
    monkeypatch.setattr("mission9.notebook._check_images", lambda _: None)  # tests/s3 has a bucket
    config = read_config({"DATASET_PATH": "s3a://bucket/fruits-360/", "OUTPUT_PATH": "s3a://bucket/results/"})
    assert (config.input, config.output) == ("s3://bucket/fruits-360", "s3://bucket/results")
    assert (config.driver_memory, config.weights, config.components, config.batch_size) == ("3g", "imagenet", 50, None)
    assert not list(root.iterdir())


def test_config_gives_every_setting_by_its_name(root: Path) -> None:
    write_fruits(root / "photos", varieties=1, training=1, test=0)
    given = {"DATASET_PATH": root / "photos", "BATCH_SIZE": 16, "SPARK_DRIVER_MEMORY": "4g", "COMPONENTS": 0.9}
    config = read_config(given | {"MLFLOW_TRACKING_URI": "local", "PREPROCESS": "crop", "WEIGHTS": None})
    assert (config.batch_size, config.driver_memory, config.components) == (16, "4g", 0.9)
    assert (config.mlflow, config.preprocess, config.weights) == ("local", "crop", "imagenet")
    assert read_config({"DATASET_PATH": "photos/"}).output == "data/Results"


@pytest.mark.parametrize("name", ["DATASET", "BATCHSIZE", "INPUTS"])
def test_a_key_that_there_is_not_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^CONFIG has no {name}; there are: DATASET_PATH, OUTPUT_PATH, WEIGHTS"):
        read_config({name: 1})


@pytest.mark.parametrize("wrong", ["dataset/fruits-360_datset/fruits-360", "{root}/none", "../photos", "~/photos"])
def test_a_typo_in_the_path_is_told_and_nothing_is_drawn(wrong: str, root: Path) -> None:
    place = wrong.format(root=root)
    with pytest.raises(InputError, match="there is no folder /.*: correct DATASET_PATH, which counts from /"):
        read_config({"DATASET_PATH": place})
    assert not list(root.iterdir())


def test_a_folder_without_images_is_told(root: Path) -> None:
    (root / FRUITS / "Training").mkdir(parents=True)
    with pytest.raises(InputError, match=r"DATASET_PATH leads to no images: .*"):
        read_config({})


@pytest.mark.parametrize("given", [{}, {"DATASET_PATH": FRUITS}, {"DATASET_PATH": f"{FRUITS}/"}])
def test_the_sample_is_taken_where_the_default_dataset_is_not_there(
    given: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mission9.notebook.write_sample", lambda _: 640)
    monkeypatch.setenv("MISSION9_WEIGHTS", "imagenet")
    config = read_config(given)
    assert (config.input, config.output, config.weights) == (SAMPLE, "data/Results", "demo")
    assert "640 generated photographs in data/demo/fruits take its place" in capsys.readouterr().out
    assert read_config(given | {"WEIGHTS": "a.pth"}).weights == "a.pth"
    write_fruits(Path(FRUITS), varieties=1, training=1, test=0)
    assert read_config(given).input.rstrip("/") == FRUITS


def test_the_sample_takes_nothing_from_the_results_of_other_images(root: Path, fruits_results: Results) -> None:
    copy_tree(fruits_results.root, root / "data" / "Results")
    with pytest.raises(OutputError, match="data/Results holds the results of .*: give DATASET_PATH, or another"):
        read_config({})
    assert not (root / SAMPLE).exists()


def test_pictures_are_opened_and_damaged_ones_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (100, 50), (200, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    rows = [SimpleNamespace(root=str(tmp_path), path=f"{name}.png", label=name) for name in "abc"]
    (picture,) = open_pictures(rows)
    assert (picture.label, picture.content) == ("a", (tmp_path / "a.png").read_bytes())
    assert picture.pixels.shape == (32, 64, 3)
    assert (picture.pixels == (200, 0, 0)).all()
    assert open_pictures(rows[1:]) == []


def test_a_map_names_the_largest_labels_and_of_equal_ones_some_of_every_part() -> None:
    sizes = {f"label {n:03d}": 3 for n in range(131)} | {"label 077": 9}
    column = np.repeat(np.array(list(sizes), object), list(sizes.values()))
    legend = label_map(np.zeros((len(column), 2), np.float32), column).axes[0].get_legend()
    assert legend is not None
    named = [text.get_text().strip() for text in legend.get_texts()][1:]
    assert {"label 000", "label 077", "label 130"} <= set(named)
    assert len(set(named)) == MAX_NAMED


@pytest.mark.parametrize(("labels", "components"), [(1, 1), (12, 3), (MAX_NAMED, 2), (131, 50)])
def test_a_map_is_readable_with_any_number_of_labels(labels: int, components: int) -> None:
    names = ["_hidden", "$x$ and $", "long " * 60, *(f"label {n:03d}" for n in range(labels))][:labels]
    counts = np.arange(labels) % 7 + 2
    column = np.repeat(np.array(names, object), counts)
    pca = np.random.default_rng(0).normal(size=(len(column), components)).astype(np.float32)
    figure = label_map(pca, column)
    figure.savefig(io.BytesIO())
    (ax,) = figure.axes
    told = ax.get_legend()
    assert told is not None
    texts = [text.get_text().strip() for text in told.get_texts()]
    assert len(texts) == min(labels, MAX_NAMED) + (labels > MAX_NAMED)
    assert ("111 other labels" in texts) == (labels == 131)
    assert max(map(len, texts)) <= 31
    drawn = [each for each in ax.collections if isinstance(each, PathCollection)]
    looks = {str(each.get_facecolor()) for each in drawn}
    assert len(looks) == len(drawn) == len(texts)
    assert sum(len(np.asarray(each.get_offsets())) for each in drawn) == len(column)
    width = figure.get_window_extent().width
    assert ax.get_window_extent().width > 0.5 * width
    assert told.get_window_extent().x0 >= ax.get_window_extent().x1
    assert told.get_window_extent().height <= figure.get_window_extent().height
