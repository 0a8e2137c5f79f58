"""DataFrames as users bring them: their own labels and splits, paths of anywhere, sessions of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.pandas.functions import pandas_udf

from mission9 import MobileNetV2Extractor, SparkImagePipeline
from mission9.dataframes import PathRule, image_table, scores_table
from mission9.errors import ImageError, InputError
from mission9.stages.prepare_images import ImageRow


def read(table: DataFrame, rule: PathRule) -> list[ImageRow]:
    batches = pa.Table.from_pandas(table.toPandas(), preserve_index=False).to_batches()
    return sorted(row for batch in batches for row in rule.rows(batch))


def facts(df: DataFrame, root: str | Path | None = None) -> dict[str, tuple[str, str]]:
    return {row.path: (row.split, row.label) for row in read(*image_table(df, root))}


def images(spark: SparkSession, *paths: str) -> DataFrame:
    return spark.createDataFrame([(path, b"x") for path in paths], "path string, content binary")


@pytest.fixture
def pipeline(spark: SparkSession) -> Iterator[SparkImagePipeline]:
    with SparkImagePipeline(weights="demo", max_reject_rate=0.5) as pipeline:
        yield pipeline


LABELS = {
    "'Apple'": "Apple",
    "7": "7",
    "cast(7 as tinyint)": "7",
    "7.5D": "7.5",
    "true": "true",
    "date'2026-01-31'": "2026-01-31",
    "cast(1.50 as decimal(5,2))": "1.50",
    "cast(null as int)": "",
    "cast('NaN' as double)": "",
}


def test_a_label_of_any_simple_type_becomes_text(spark: SparkSession) -> None:
    df = images(spark, "file:/d/Training/a/1.jpg").withColumn("split", f.lit("Training"))
    found = [image_table(df.withColumn("Label", f.expr(expression)), None) for expression in LABELS]
    numbered = [table.withColumn("path", f.lit(str(n))) for n, (table, _) in enumerate(found)]
    rows = read(reduce(DataFrame.union, numbered), found[0][1])
    assert [row.label for row in rows] == list(LABELS.values())


@pytest.mark.parametrize("expression", ["array(1)", "struct(1)", "map(1, 2)", "x'41'"])
def test_a_label_of_several_values_is_refused(spark: SparkSession, expression: str) -> None:
    with pytest.raises(InputError, match=r"the column label is of type .*: give text"):
        image_table(images(spark, "a/1.jpg").withColumn("label", f.expr(expression)), None)


def test_columns_win_over_paths(spark: SparkSession) -> None:
    df = images(spark, "file:/d/Training/a/1.jpg", "file:/d/Test/b/1.jpg")
    assert set(facts(df).values()) == {("Training", "a"), ("Test", "b")}
    assert set(facts(df.withColumn("label", f.lit("own"))).values()) == {("Training", "own"), ("Test", "own")}
    assert set(facts(df.withColumn("split", f.lit("val"))).values()) == {("Validation", "a"), ("Validation", "b")}
    assert set(facts(df.withColumn("split", f.lit(None))).values()) == {("all", "a"), ("all", "b")}
    with pytest.raises(InputError, match="two columns label"):
        image_table(df.withColumn("label", f.lit(1)).select("*", f.lit(2).alias("Label")), None)


@pytest.mark.parametrize(
    ("root", "paths", "wanted"),
    [
        (None, ["file:/x/test/photos/a/1.jpg", "file:/x/test/photos/b/1.jpg"], [("all", "a"), ("all", "b")]),
        (None, ["file:/x/train/Training/a/1.jpg", "file:/x/train/Test/a/1.jpg"], [("Training", "a"), ("Test", "a")]),
        (None, ["file:/x/test/photos/a/1.jpg"], [("all", "a")]),
        (None, ["file:/x/photos/a/train/1.jpg", "file:/x/photos/b/2.jpg"], [("all", "train"), ("all", "b")]),
        ("/x", ["file:/x/Training/a/1.jpg", "file:/x/Training/b/1.jpg"], [("Training", "a"), ("Training", "b")]),
        ("file:///x/", ["file:/x/Test/a/1.jpg"], [("Test", "a")]),
        ("s3://bucket/p", ["s3a://bucket/p/Test/a//1.jpg"], [("Test", "a")]),
        ("/x", ["hdfs://node:8020/x/Test/a/1.jpg"], [("Test", "a")]),
        ("/x/a", ["file:/x/a/1.jpg"], [("all", "a")]),
    ],
)
def test_folders_above_the_dataset_decide_nothing(
    spark: SparkSession, root: str | None, paths: list[str], wanted: list[tuple[str, str]]
) -> None:
    _, rule = image_table(images(spark, *paths), root)
    assert [rule.split_and_label(path, "") for path in paths] == wanted


def test_the_label_may_be_a_folder_further_up(spark: SparkSession) -> None:
    paths = ["file:/x/Training/Apple/Golden/1.jpg", "file:/x/Training/Apple/1.jpg", "file:/x/other/a/b/1.jpg"]
    _, rule = image_table(images(spark, *paths), "/x", 1)
    assert [rule.split_and_label(path, "")[1] for path in paths] == ["Apple", "Apple", "other"]


def test_paths_outside_the_root_are_refused(spark: SparkSession) -> None:
    df = images(spark, "s3a://bucket/p/a/1.jpg", "s3a://bucket/q/a/1.jpg")
    for root in ("s3://bucket/p", "s3://other", "/elsewhere"):
        with pytest.raises(InputError, match=f"not all paths are below {root}"):
            image_table(df, root)
    assert facts(df.limit(0), "/elsewhere") == {}


def test_columns_of_other_types_are_told(spark: SparkSession) -> None:
    with pytest.raises(InputError, match="the column content is of type string, not binary"):
        image_table(spark.createDataFrame([("a", "x")], "path string, content string"), None)
    with pytest.raises(InputError, match="the column path is of type int, not string"):
        image_table(spark.createDataFrame([(1, b"x")], "path int, content binary"), None)


def test_labels_and_splits_may_be_set_between_the_steps(pipeline: SparkImagePipeline, tree: Path) -> None:
    df = pipeline.spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(str(tree))
    number = f.when(df.path.contains("/a/"), 1).otherwise(2)
    features = pipeline.extract_features(df.withColumn("label", number))
    assert {row.label for row in features.collect()} == {"1", "2"}
    moved = features.withColumn("label", features.label.cast("int")).replace("Training", "train", ["split"])
    scores, model = pipeline.apply_pca(moved, 2)
    assert model.n_samples_ == 12
    assert {(row.split, row.label) for row in scores.collect()} == {
        (split, label) for split in ("Training", "Test") for label in "12"
    }
    with pytest.raises(InputError, match="15 of 15 rows have no label"):
        pipeline.apply_pca(features.withColumn("label", f.lit(None)), 2)
    with pytest.raises(InputError, match="the column split holds x"):
        scores_table(features.withColumn("split", f.lit("x")))


def test_an_extractor_works_in_a_pandas_udf(spark: SparkSession, pictures: list[bytes]) -> None:
    extractor = MobileNetV2Extractor(device="cpu", weights="demo")
    wanted = extractor.extract_batch(pictures)  # its engine is made, and a child decodes

    def extract(content: pd.Series) -> pd.Series:
        return pd.Series(list(extractor.extract_batch(content)))

    features = pandas_udf(extract, "array<float>")  # type: ignore[call-overload]
    df = spark.createDataFrame([(n, data) for n, data in enumerate(pictures)], "n int, content binary").repartition(3)
    for row in df.select("n", features("content").alias("features")).collect():
        assert row.features == pytest.approx(wanted[row.n], rel=1e-4, abs=1e-4)
    row = df.where("n = 0").collect()[0]
    assert extractor.extract(row.content) == pytest.approx(wanted[0], rel=1e-4, abs=1e-4)  # perhaps a bytearray
    with pytest.raises(ImageError, match="image 0: give a path, bytes, a PIL image or an array, not NoneType"):
        extractor.extract(None)  # type: ignore[arg-type]


CONTEXTS = """
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession
from mission9 import SparkImagePipeline

context = SparkContext(conf=SparkConf().setMaster("local[1]").set("spark.ui.enabled", "false"))
with SparkImagePipeline(weights="demo") as pipeline:
    assert pipeline.spark.sparkContext is context
print("theirs", context.parallelize([1, 2], 1).sum())
context.stop()

pipeline = SparkImagePipeline(weights="demo", master="local[1]")
pipeline.spark.stop()
other = SparkSession.builder.master("local[1]").getOrCreate()
pipeline.close()
print("next", other.sparkContext.parallelize([1, 2], 1).sum(), SparkSession.builder.getOrCreate() is other)
other.stop()

with SparkImagePipeline(weights="demo", master="local[1]") as pipeline:
    pass
print("ours", SparkContext._active_spark_context)
"""


@pytest.mark.slow
@pytest.mark.spark
def test_close_stops_what_the_pipeline_made_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", CONTEXTS], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["theirs 3", "next 3 True", "ours None"], done.stderr
