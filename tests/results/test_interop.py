"""Results in other libraries: each opens in a line, and gives the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from mission9 import PCAModel, RunConfig, run
from mission9.cli import main
from mission9.decoding.decode import decode_image
from mission9.pca import Moments, fit
from mission9.results.export import to_sklearn, with_vectors
from mission9.results.reader import Results
from tests.conftest import InProcessRunner


def test_pandas_opens_tables_in_a_line(fruits_results: Results) -> None:
    import pandas as pd

    table = pd.read_parquet(fruits_results.root / "training_pca")
    assert_same(table["path"], table["pca"], table["label"], fruits_results)


def test_polars_opens_tables_in_a_line(fruits_results: Results) -> None:
    import polars as pl

    table = pl.read_parquet(fruits_results.root / "training_pca/**/*.parquet", hive_partitioning=True)
    assert_same(table["path"], table["pca"], table["label"], fruits_results)


def test_duckdb_opens_tables_in_a_line(fruits_results: Results) -> None:
    import duckdb

    table = duckdb.read_parquet(f"{fruits_results.root}/training_pca/**/*.parquet", hive_partitioning=True)
    paths, rows, labels = zip(*table.select("path, pca, label").fetchall(), strict=True)
    assert_same(paths, rows, labels, fruits_results)


def assert_same(paths: Any, rows: Any, labels: Any, results: Results) -> None:
    wanted = results.scores("Training")
    order = np.argsort(np.array([path.encode() for path in paths]))
    np.testing.assert_array_equal(np.array(list(rows), np.float32)[order], wanted.pca)
    told = list(map(str, labels))
    assert [told[at] for at in order] == list(wanted.labels)


def test_spark_ml_takes_the_columns_as_vectors(tree: Path, tmp_path: Path, spark: SparkSession) -> None:
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import StringIndexer

    settings = {"input": str(tree), "output": str(tmp_path / "out"), "weights": "demo", "components": 8}
    run(RunConfig(**settings, no_report=True), InProcessRunner())

    table = with_vectors(spark.read.parquet(str(tmp_path / "out" / "training_pca")), "pca")
    assert table.schema["pca"].dataType.typeName() == "vectorudt"
    indexed = StringIndexer(inputCol="label", outputCol="target").fit(table).transform(table)
    fitted = LogisticRegression(featuresCol="pca", labelCol="target", maxIter=5).fit(indexed)
    assert fitted.numFeatures == 8


@pytest.mark.parametrize("whiten", [False, True])
def test_the_model_is_a_fitted_pca_of_scikit_learn(whiten: bool) -> None:
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(1).normal(size=(200, 30)) * np.linspace(1, 3, 30) + 5
    found = to_sklearn(fit(Moments.of(rows), 4, whiten=whiten))
    wanted = PCA(4, svd_solver="full", whiten=whiten).fit(rows)
    for name in ("components_", "mean_", "explained_variance_", "singular_values_", "noise_variance_"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(found.transform(rows), wanted.transform(rows), atol=1e-9)
    np.testing.assert_allclose(
        found.inverse_transform(found.transform(rows)), wanted.inverse_transform(wanted.transform(rows))
    )
    assert found.score(rows) == pytest.approx(wanted.score(rows))


def test_onnx_runtime_gives_the_scores_of_the_table(fruits_results: Results, tmp_path: Path) -> None:
    import onnxruntime

    file = tmp_path / "model.onnx"
    assert main(["export", str(fruits_results.root), "--onnx", str(file)]) == 0
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["preprocess"] == "stretch"
    wanted = fruits_results.scores("Test").take(slice(0, 5))
    files = [fruits_results.root.parent / "fruits" / path for path in wanted.paths]
    images = [decode_image(file.read_bytes(), max_pixels=10**8).resize((224, 224), 2) for file in files]
    (found,) = session.run(None, {"images": np.stack([np.asarray(image) for image in images])})
    np.testing.assert_allclose(found, wanted.pca, rtol=1e-4, atol=1e-4)


def test_a_model_that_does_not_say_of_what_it_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Moments.of(np.eye(4)), 2).save(tmp_path / "pca_model")
    assert main(["export", str(tmp_path), "--onnx", str(tmp_path / "x.onnx")]) == 2
    assert "does not say what features it was made of" in capsys.readouterr().err


def test_a_model_of_other_precision_is_not_exported(
    fruits_results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = PCAModel.load(fruits_results.root / "pca_model")
    model.save(tmp_path / "pca_model", {**model.facts, "engine": {"precision": "int8"}})
    assert main(["export", str(tmp_path), "--onnx", str(tmp_path / "x.onnx")]) == 2
    assert "was made of features in int8" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()
