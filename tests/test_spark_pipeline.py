"""The interface for notebooks, with the arguments and results that the original project printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from mission9 import MobileNetV2Extractor, PCAModel, RunConfig, SparkImagePipeline, run
from mission9.errors import ConfigError, ImageError, InputError, OutputError, TooManyRejects
from mission9.feature_extractor import ImageLike
from mission9.schema import vectors
from tests.conftest import REPOSITORY, InProcessRunner


@pytest.fixture(scope="module")
def extractor() -> MobileNetV2Extractor:
    return MobileNetV2Extractor(device="auto", batch_size=32, weights="demo")


def test_extract_takes_a_path_bytes_a_picture_or_an_array(
    extractor: MobileNetV2Extractor, pictures: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(pictures[0])
    with Image.open(path) as image:
        forms: list[ImageLike] = [str(path), path, pictures[0], image, np.asarray(image)]
        vectors_ = [extractor.extract(form) for form in forms]
    assert vectors_[0].shape == (1280,)
    assert vectors_[0].dtype == np.float32
    for vector in vectors_[1:]:
        np.testing.assert_array_equal(vector, vectors_[0])


def test_extract_batch_keeps_the_order(extractor: MobileNetV2Extractor, pictures: list[bytes]) -> None:
    features = extractor.extract_batch(pictures)
    assert features.shape == (10, 1280)
    np.testing.assert_allclose(features[7], extractor.extract(pictures[7]), rtol=1e-4, atol=1e-5)
    assert extractor.extract_batch([]).shape == (0, 1280)


def test_extract_says_which_image_is_bad(
    extractor: MobileNetV2Extractor, pictures: list[bytes], tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match="image 1:"):
        extractor.extract_batch([pictures[0], b"bad"])
    with pytest.raises(ImageError, match="nowhere.jpg"):
        extractor.extract(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match=r"\(H, W, 3\) uint8"):
        extractor.extract(np.zeros((10, 10), np.uint8))


@pytest.fixture
def pipeline(spark: SparkSession) -> Iterator[SparkImagePipeline]:
    with SparkImagePipeline(weights="demo", max_reject_rate=0.3) as pipeline:
        assert pipeline.spark.sparkContext is spark.sparkContext
        yield pipeline
    assert spark.range(1).count() == 1  # a session that was there is not stopped


def test_the_four_steps_give_what_a_run_gives(
    pipeline: SparkImagePipeline, tree: Path, tmp_path: Path, in_process: InProcessRunner
) -> None:
    df = pipeline.load_images(str(tree))
    df_features = pipeline.extract_features(df)
    df_pca, model = pipeline.apply_pca(df_features, n_components=3)
    pipeline.save_pca_results(df_pca, str(tmp_path / "out"))

    assert isinstance(model, PCAModel)
    assert df_features.count() == df_pca.count() == 15
    assert len(df_pca.take(1)[0].pca) == 3
    config = RunConfig(input=str(tree), output=str(tmp_path / "run"), weights="demo", components=3)
    run(config, in_process)
    for split in ("training", "test"):
        ours, theirs = (pd.read_csv(tmp_path / name / f"{split}_pca_csv" / "part-00000.csv") for name in ("out", "run"))
        assert ours[["path", "label"]].equals(theirs[["path", "label"]])
        np.testing.assert_allclose(ours.iloc[:, 2:], theirs.iloc[:, 2:], rtol=1e-4, atol=1e-4)
        folders = [sorted(os.listdir(tmp_path / name / f"{split}_pca")) for name in ("out", "run")]
        assert folders[0] == folders[1] == ["label=a", "label=b"]
    assert sorted(name for name in os.listdir(tmp_path / "out") if name != "_state") == [
        "test_pca",
        "test_pca_csv",
        "training_pca",
        "training_pca_csv",
    ]


@pytest.mark.parametrize("partitions", [1, 7])
def test_partitions_change_nothing(partitions: int, pipeline: SparkImagePipeline, tree: Path) -> None:
    df = pipeline.load_images(str(tree))
    one = {row.path: row.features for row in pipeline.extract_features(df).collect()}
    other = {row.path: row.features for row in pipeline.extract_features(df.repartition(partitions)).collect()}
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=1e-5, atol=1e-5)


def test_spark_binary_files_are_taken_too(pipeline: SparkImagePipeline, tree: Path) -> None:
    df = pipeline.spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(str(tree))
    rows = pipeline.extract_features(df).collect()
    assert {(row.split, row.label) for row in rows} == {(s, a) for s in ("Training", "Test") for a in ("a", "b")}
    assert all(row.reason is None and len(row.features) == 1280 for row in rows)
    read_by_python = pipeline.extract_features(pipeline.load_images(str(tree))).collect()
    wanted = {f"{row.split}/{row.label}/{row.path.rpartition('/')[2]}": row for row in read_by_python}
    assert len(rows) == len(wanted) == 15
    for row in rows:
        other = wanted["/".join(row.path.split("/")[-3:])]
        assert (row.sha256, row.bytes) == (other.sha256, other.bytes)
        np.testing.assert_allclose(row.features, other.features, rtol=1e-5, atol=1e-5)


def test_bad_images_are_rows_with_a_reason(pipeline: SparkImagePipeline, tree: Path) -> None:
    (tree / "Training/a/bad.jpg").write_text("bad")
    df = pipeline.extract_features(pipeline.load_images(str(tree)))
    (row,) = df.where("features is null").collect()
    assert (row.path, row.stage, row.reason) == ("Training/a/bad.jpg", "decode", "not_an_image")
    df_pca, model = pipeline.apply_pca(df, n_components=2)
    assert model.n_samples_ == 12
    assert df_pca.count() == 15


def test_a_folder_is_listed_as_it_is_at_that_moment(pipeline: SparkImagePipeline, tree: Path) -> None:
    assert pipeline.load_images(str(tree)).count() == 15
    (tree / "Test/b/1.jpg").write_bytes(b"new")
    assert pipeline.load_images(str(tree)).count() == 16


def test_mistakes_are_told(pipeline: SparkImagePipeline, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        pipeline.load_images(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="lacks path, root"):
        pipeline.extract_features(pipeline.spark.range(3))


@pytest.mark.slow
def test_mistakes_that_images_show_are_told(pipeline: SparkImagePipeline, tree: Path, tmp_path: Path) -> None:
    df = pipeline.extract_features(pipeline.load_images(str(tree)))
    with pytest.raises(ConfigError, match="give 1 to 12"):
        pipeline.apply_pca(df, n_components=13)
    (tmp_path / "run" / "_state").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="holds the result of a run"):
        pipeline.save_pca_results(pipeline.apply_pca(df, 2)[0], str(tmp_path / "run"))
    with pytest.raises(InputError, match="lacks pca"):
        pipeline.save_pca_results(df, str(tmp_path / "out"))
    for n in range(10):
        (tree / f"Test/b/bad{n}.jpg").write_text("bad")
    with pytest.raises(TooManyRejects, match="10 of 25"):
        pipeline.apply_pca(pipeline.extract_features(pipeline.load_images(str(tree))), 2)


BARE = """
import sys
assert "mission9" not in sys.modules
from src.feature_extractor import MobileNetV2Extractor
from src.spark_pipeline import SparkImagePipeline
from pyspark.sql import SparkSession

print(MobileNetV2Extractor(device="cpu", batch_size=32, weights="demo").extract(sys.argv[1] + "/Test/a/0.jpg").shape)
pipeline = SparkImagePipeline(weights="demo", master="local[1]", driver_memory="1g")
df = pipeline.load_images(sys.argv[1])
df_features = pipeline.extract_features(df)
df_pca, model = pipeline.apply_pca(df_features, n_components=2)
pipeline.save_pca_results(df_pca, sys.argv[2])
pipeline.close()
print(SparkSession.getActiveSession())
import mission9
print(mission9.__file__)
"""


@pytest.mark.slow
@pytest.mark.spark
def test_the_original_names_work_from_a_bare_checkout(tree: Path, tmp_path: Path) -> None:
    """Without mission9 installed: an environment that sees the other packages only, in a copy of the sources."""
    import shutil
    import site

    checkout = tmp_path / "a checkout"
    shutil.copytree(REPOSITORY / "src", checkout / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but the .pth files in it, which install mission9, are not read.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    command = [str(environment / "bin" / "python"), "-c", BARE, str(tree), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(1280,)", "None", str(checkout / "src" / "mission9" / "__init__.py")]
    assert vectors(pq.read_table(tmp_path / "out" / "test_pca")["pca"]).shape == (3, 2)
