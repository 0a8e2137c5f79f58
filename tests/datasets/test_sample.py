from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from mission9.datasets.demo import SPLITS, VARIETIES, draw, jpeg, write_sample
from mission9.models.weights import DEMO_FILE
from mission9.results.reader import Results
from mission9.schema import vectors
from tests.conftest import REPOSITORY


def test_the_sample_is_large_enough_and_complete(sample: Path) -> None:
    files = list(sample.rglob("*.jpg"))
    assert len(files) == sum(SPLITS.values()) * len(VARIETIES) >= 600
    assert len(VARIETIES) >= 12
    assert {path.parent.name for path in files} == {variety.name for variety in VARIETIES}
    with Image.open(files[0]) as picture:
        assert picture.size == (100, 100)


def test_the_same_call_draws_the_same_picture_and_others_differ() -> None:
    apple, banana = VARIETIES[0], VARIETIES[3]
    np.testing.assert_array_equal(draw(apple, stream=0, number=1), draw(apple, stream=0, number=1))
    others = [draw(apple, stream=0, number=2), draw(apple, stream=1, number=1), draw(banana, stream=0, number=1)]
    assert all((draw(apple, stream=0, number=1) != other).any() for other in others)
    assert Image.open(io.BytesIO(jpeg(draw(apple, stream=0, number=1)))).format == "JPEG"


def test_writing_twice_changes_nothing(sample: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in sample.rglob("*.jpg")}
    assert write_sample(sample) == len(times)
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*.jpg")} == times


def test_the_demo_weights_are_small_half_precision() -> None:
    path = REPOSITORY / "src" / "mission9" / "data" / DEMO_FILE
    assert path.stat().st_size <= 5_000_000


def scores(folder: Path) -> tuple[NDArray[np.float32], list[str]]:
    table = pq.read_table(folder)
    return vectors(table["pca"]), table["label"].to_pylist()


def test_neighbours_in_50_components_tell_the_varieties_apart(fruits_results: Results) -> None:
    """Among a third of the sample's pictures: more would only make it easier."""
    training, labels = scores(fruits_results.root / "training_pca")
    test, wanted = scores(fruits_results.root / "test_pca")
    assert training.shape[1] == 50
    accuracy = KNeighborsClassifier(1).fit(training, labels).score(test, wanted)
    print(f"1-NN accuracy on 50 components of the sample's Test: {accuracy:.3f}")
    assert accuracy >= 0.9
