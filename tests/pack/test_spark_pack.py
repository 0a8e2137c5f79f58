"""Packs of what only Java can read: Spark's `binaryFile` on files, which it reads by the same way as HDFS."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from mission9.cli import main
from mission9.pack import spark_pack
from mission9.sources.listing import Listing
from mission9.sources.pack import layout
from mission9.spark_pipeline import SparkImagePipeline
from tests.pack.test_pack import content_of, features_run, packed, rows_of
from tests.support.hostile import tables


def without_times(place: Path) -> list[dict[str, object]]:
    """Rows of a listing; Spark tells milliseconds."""
    return [{**row, "modified": int(row["modified"]) // 10**6} for row in rows_of(place)[0]]


@pytest.mark.slow
def test_spark_packs_what_python_packs(
    spark: SparkSession, tree: Path, tmp_path: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_pack, "PART_BYTES", 6 * len(pictures[0]))
    for name in ("Training/Pomme d'été 1/a=b%20 #1.jpg", "Training/日本/🍑.jpg", "Training/a[b]/{c}.jpg", "Test/x.jpg"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(pictures[9])
    (tree / "Training/b/notes.txt").write_text("none")
    (tree / "LICENSE").write_text("free")
    before = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    command = ["pack", "--input", str(tree), "--output", str(tmp_path / "spark"), "--reader", "spark"]
    assert main(command) == 0
    packed(tree, tmp_path / "python")
    assert without_times(tmp_path / "spark") == without_times(tmp_path / "python")
    assert len(list((tmp_path / "spark" / layout.IMAGES).iterdir())) > 1
    for row in rows_of(tree)[0]:
        assert content_of(tmp_path / "spark", row["path"]) == (tree / row["path"]).read_bytes()
    assert rows_of(tmp_path / "spark")[1].skipped == {".txt": 1, "(none)": 1}
    assert spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch") == before
    # Again, everything anew, in the place of what was there.
    (tree / "Test/x.jpg").unlink()
    assert main(command) == 0
    assert without_times(tmp_path / "spark") == without_times(tree)
    assert len(pq.read_table(tmp_path / "spark" / layout.IMAGES)) == 18


def test_spark_reads_nothing_of_what_is_no_image(
    spark: SparkSession, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("Training/b/film.mp4", "Training/b/dot.", "Training/b/large.v2.TAR", "list", "x.json")
    for name in (*names, "Training/b/none", "Training/b/BIG.Jpeg", "Training/b/node_modules/1.jpg", "lost+found/#1"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"x")
    (tree / "Test").rename(tree / "testing")
    with (tree / "Training/b/film.mp4").open("wb") as film:
        film.truncate(3 << 30)  # more than Spark can hold
    (tree / "Training/b/2024").mkdir()
    (tree / "Training/b/0.jpg").rename(tree / "Training/b/2024/0.jpg")
    command = ["pack", "--input", str(tree), "--reader", "spark", "--label-level", "1", "--output"]
    assert main([*command, str(tmp_path / "spark")]) == 0
    packed(tree, tmp_path / "python", listing=Listing(label_level=1))
    assert without_times(tmp_path / "spark") == without_times(tmp_path / "python")
    assert {row["label"] for row in rows_of(tmp_path / "spark")[0]} == {"a", "b"}
    assert rows_of(tmp_path / "spark")[1].skipped == rows_of(tmp_path / "python")[1].skipped
    capsys.readouterr()
    assert main([*command, str(tmp_path / "all"), "--all-files"]) == 2
    assert "3,221,225,472 bytes" in capsys.readouterr().err
    for place in (tree, tree / "Training" / "pack"):
        assert main([*command, str(place)]) == 2
        assert "among the images" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.json").write_text("{}")
    assert main(["pack", "--input", str(tmp_path / "none"), "--reader", "spark", "--output", str(tmp_path / "p")]) == 2
    assert "there are no images in" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_what_spark_cannot_read_is_told(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for place in (str(tmp_path / "none"), "hdfs://127.0.0.1:9/images", str(tmp_path / "empty"), "nosuch://x/y"):
        command = ["pack", "--input", place, "--output", str(tmp_path / "pack"), "--reader", "spark"]
        assert main(command) in (1, 2), place
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert len([line for line in said.splitlines() if line.startswith("mission9: Spark")]) == 1, said
    assert not (tmp_path / "pack" / layout.MANIFEST).exists()


def test_spark_s_workers_read_packs(spark: SparkSession, tree: Path, tmp_path: Path) -> None:
    packed(tree, tmp_path / "pack")
    for name, images in (("wanted", tree), ("found", tmp_path / "pack")):
        report = features_run(images, tmp_path / name, runner="spark")
        assert report.images_inferred == 15
    assert tables(tmp_path / "found") == tables(tmp_path / "wanted")
    with SparkImagePipeline(weights="demo") as pipeline:
        rows = pipeline.extract_features(pipeline.load_images(str(tmp_path / "pack"))).collect()
    shas = {row["path"]: row["sha256"] for row in tables(tmp_path / "wanted")["features"]}
    assert {row.path: row.sha256 for row in rows} == shas
