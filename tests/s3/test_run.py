from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.errors import InputError, ModelError, OutputError, TooManyRejects, WeightsError
from mission9.models.weights import load_weights
from mission9.output.open import output_at
from mission9.pipeline.run import run
from mission9.results.projector import Projector
from mission9.results.reader import Results
from mission9.results.verify import verify_output
from mission9.runners.base import InProcessRunner
from mission9.schema import vectors
from mission9.storage.local.names import label_folder
from mission9.storage.local.untrusted import MAX_WEIGHTS_BYTES
from mission9.storage.s3 import listing
from tests.conftest import add_odd_files
from tests.s3.conftest import Bucket

ODD_NAMES = ("Training/Pomme d'été 1/a=b%20.jpg", "Training/a=b/日本.jpg", "Test/007/#1.jpg", "Training/100%/1.jpg")
SETTINGS: dict[str, Any] = {"weights": "demo", "components": 5}


def tables_of(place: str) -> dict[str, Any]:
    results = Results.of(place)
    features = pa.Table.from_batches(results.images(["path", "split", "label", "sha256", "features"]))
    scores = {split: results.scores(split) for split in results.splits}
    rejects = results.rejects().select(["path", "reason"]).to_pylist()
    return {"features": features, "scores": scores, "rejects": rejects, "report": results.report}


def assert_same(found: str, wanted: str) -> None:
    """Two results are of the same images, and alike."""
    there, here = tables_of(found), tables_of(wanted)
    for name in ("path", "split", "label", "sha256"):
        assert there["features"][name].to_pylist() == here["features"][name].to_pylist()
    np.testing.assert_allclose(
        vectors(there["features"]["features"]), vectors(here["features"]["features"]), rtol=1e-5, atol=1e-6
    )
    assert there["rejects"] == here["rejects"]
    assert there["scores"].keys() == here["scores"].keys()
    for split, scores in there["scores"].items():
        assert scores.paths.tolist() == here["scores"][split].paths.tolist()
        assert scores.labels.tolist() == here["scores"][split].labels.tolist()
        np.testing.assert_allclose(scores.pca, here["scores"][split].pca, rtol=1e-4, atol=1e-4)
    for name in ("splits", "skipped", "found", "fingerprint", "n_components"):
        assert getattr(there["report"], name) == getattr(here["report"], name)


@pytest.fixture
def odd_tree(tree: Path, pictures: list[bytes]) -> Path:
    """The tree with names that keys may have, and files that are no images."""
    return add_odd_files(tree, ODD_NAMES, pictures[9])


def local_run(images: Path | str, output: Path, **settings: Any) -> str:
    run(RunConfig(input=str(images), output=str(output), max_reject_rate=0.5, **{**SETTINGS, **settings}))
    return str(output)


def test_images_of_a_bucket_give_the_same_as_those_of_a_folder(bucket: Bucket, odd_tree: Path, tmp_path: Path) -> None:
    address = bucket.upload(odd_tree)
    wanted = local_run(odd_tree, tmp_path / "wanted")
    found = local_run(address.replace("s3://", "s3a://"), tmp_path / "found", verify_content=True)
    assert_same(found, wanted)
    assert not list(verify_output(found))
    assert Results.of(found).report.config["input"] == address
    report = run(RunConfig(input=address, output=found, max_reject_rate=0.5, verify_content=True, **SETTINGS))
    assert report.images_inferred == 2  # rejects have no SHA-256 to be known by


# Swift cannot list a key that XML cannot hold.
ODD_KEYS = ("a//1.jpg", "a/./2.jpg", "a/../3.jpg", "a\n\t/4.jpg", "/5.jpg", "a/\x7f.jpg")


@pytest.mark.parametrize("at", ["", "images"])
def test_keys_that_no_folder_could_have_are_images_like_others(
    bucket: Bucket, pictures: list[bytes], at: str, tmp_path: Path
) -> None:
    keys = [f"{at}/Training/{key}".removeprefix("/") for key in ODD_KEYS]
    keys += ["/Training/b/7.jpg"] if not at else []  # a slash that nobody meant
    for key, picture in zip(keys, pictures, strict=False):
        bucket.put_odd(key, picture)
    bucket.put(f"{at}/Training/b/0.jpg".removeprefix("/"), pictures[0])
    report = run(RunConfig(input=f"{bucket}/{at}", output=str(tmp_path / "out"), max_reject_rate=0.9, **SETTINGS))
    batches = Results.of(tmp_path / "out").images(["path", "split", "label"])
    rows = {row["path"]: row for row in pa.Table.from_batches(batches).to_pylist()}
    assert (report.listed, report.rejected) == (len(keys) + 1, 0)
    assert sorted(rows) == sorted([*(key.removeprefix(f"{at}/") if at else key for key in keys), "Training/b/0.jpg"])
    assert {row["split"] for row in rows.values()} == {"Training"}
    assert rows["Training/a//1.jpg"]["label"] == "a"
    assert not list(verify_output(str(tmp_path / "out")))


def test_without_boto3_such_a_key_is_told(
    bucket: Bucket, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_odd("images/Training/a//1.jpg", pictures[0])
    monkeypatch.setattr(listing, "can_be_used", lambda: False)
    with pytest.raises(
        InputError, match=r"the key contains an empty name.* pip install 'mission9\[s3\]', which can read it"
    ):
        run(RunConfig(input=f"{bucket}/images", output="/nowhere", **SETTINGS))


def test_all_of_a_run_in_a_bucket(bucket: Bucket, odd_tree: Path, tmp_path: Path) -> None:
    address = bucket.upload(odd_tree)
    wanted = local_run(odd_tree, tmp_path / "wanted")
    output = f"{bucket}/some/results"
    settings = {"input": address, "output": output, "max_reject_rate": 0.5, **SETTINGS}
    first = run(RunConfig(**settings))
    assert first.images_inferred == first.listed
    assert_same(output, wanted)
    assert not list(verify_output(output))
    tables = f"some/results/runs/{first.run_id}"
    pointer = json.loads(bucket.get("some/results/run.json"))
    assert (pointer["run_id"], pointer["tables"]) == (first.run_id, f"runs/{first.run_id}")
    assert {key.rpartition("/")[0] for key in bucket.keys if key.startswith(f"{tables}/training_pca/")} == {
        f"{tables}/training_pca/{label_folder(label)}" for label in ("a", "b", "a=b", "100%", "Pomme d'été 1")
    }
    assert bucket.get(f"{tables}/report.html").startswith(b"<!DOCTYPE html>")
    again = run(RunConfig(**settings))
    assert again.images_inferred == 0
    keys = bucket.keys
    assert not [key for key in keys if first.run_id in key or "lock" in key or "todo" in key]
    assert [key for key in keys if again.run_id in key]
    assert not list(verify_output(output))


@pytest.mark.slow
def test_another_machine_goes_on_from_what_is_in_the_bucket(
    bucket: Bucket, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"input": bucket.upload(tree), "output": f"{bucket}/results", "no_report": True, **SETTINGS}
    run(RunConfig(**settings))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    bucket.put("images/Training/a/6.jpg", (tree / "Training/b/5.jpg").read_bytes() + b"\0")
    report = run(RunConfig(**settings))
    assert (report.listed, report.images_inferred) == (16, 1)
    assert not list(verify_output(settings["output"]))


@pytest.mark.slow
def test_what_the_workers_of_a_run_committed_is_not_computed_again(
    bucket: Bucket, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DyingRunner(InProcessRunner):
        def map(self, task: Any, count: int) -> list[bytes]:
            super().map(task, min(count, 2))
            raise KeyboardInterrupt

    monkeypatch.setattr("mission9.models.extraction.SHARD_IMAGES", {"cpu": 4})
    settings = {"input": bucket.upload(tree), "output": f"{bucket}/results", "no_report": True, **SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        run(RunConfig(**settings), DyingRunner())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    report = run(RunConfig(**settings))
    assert (report.listed, report.images_inferred) == (15, 8)
    assert_same(settings["output"], local_run(tree, tmp_path / "wanted"))


def test_rejects_of_a_run_that_fails_are_in_the_bucket(bucket: Bucket, tree: Path) -> None:
    (tree / "Training/a/0.jpg").write_bytes(b"no image")
    address = bucket.upload(tree)
    place = f"{bucket}/results/_state/rejects"
    with pytest.raises(TooManyRejects, match=f"Each is a row of {place}"):
        run(RunConfig(input=address, output=f"{bucket}/results", **SETTINGS))
    content = bucket.get("results/_state/rejects/part-00000.parquet")
    assert pq.read_table(pa.BufferReader(content))["path"].to_pylist() == ["Training/a/0.jpg"]


def test_objects_of_others_are_left_alone(bucket: Bucket, tree: Path) -> None:
    address = bucket.upload(tree)
    bucket.put("theirs/thesis.txt", b"years of work")
    with pytest.raises(OutputError, match="holds thesis.txt, not written by mission9"):
        run(RunConfig(input=address, output=f"{bucket}/theirs", **SETTINGS))
    assert [key for key in bucket.keys if not key.startswith("images/")] == ["theirs/thesis.txt"]
    with pytest.raises(OutputError, match="among the images"):
        run(RunConfig(input=address, output=address, overwrite=True, **SETTINGS))
    with pytest.raises(OutputError, match="cannot be the top of"):
        run(RunConfig(input=address, output=str(bucket), **SETTINGS))
    with pytest.raises(InputError, match="there are no objects below"):
        run(RunConfig(input=f"{bucket}/nowhere", output=f"{bucket}/results", **SETTINGS))
    assert not [key for key in bucket.keys if key.startswith("results/")]


def test_weights_may_lie_in_a_bucket(bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    bucket.put("w/demo.safetensors", load_weights("demo").data)
    report = run(
        RunConfig(input=str(tree), output=str(tmp_path / "o"), weights=f"{bucket}/w/demo.safetensors", components=3)
    )
    assert report.weights == {"name": f"{bucket}/w/demo.safetensors", "sha256": load_weights("demo").sha256}
    with pytest.raises(WeightsError, match=f"there is no weights file {bucket}/w/none.safetensors"):
        load_weights(f"{bucket}/w/none.safetensors")
    bucket.put("w/demo.bin", b"x")
    with pytest.raises(WeightsError, match="its name must end in"):
        load_weights(f"{bucket}/w/demo.bin")
    bucket.put("w/large.safetensors", bytes(MAX_WEIGHTS_BYTES + 1))
    with pytest.raises(WeightsError, match="bytes exceed the limit of"):
        load_weights(f"{bucket}/w/large.safetensors")


def test_a_model_in_a_bucket_places_new_images(bucket: Bucket, tree: Path, tmp_path: Path) -> None:
    output = f"{bucket}/results"
    report = run(RunConfig(input=str(tree), output=output, no_report=True, **SETTINGS))
    image = tree / "Training/a/0.jpg"
    wanted = Results.of(output).scores("Training").pca[0]
    for model in (f"{output}/pca_model", f"{output}/runs/{report.run_id}/pca_model"):
        np.testing.assert_allclose(Projector(model)(image), wanted, rtol=1e-4, atol=1e-4)
    later = run(RunConfig(input=str(tree), output=str(tmp_path / "o"), weights="demo", pca_model=f"{output}/pca_model"))
    assert later.n_components == 5
    with pytest.raises(ModelError, match="there is no PCA model at"):
        Projector(f"{bucket}/nowhere/pca_model")


def test_a_result_that_is_not_there_is_told(bucket: Bucket) -> None:
    with pytest.raises(OutputError, match=f"there is no result in {bucket}/results"):
        output_at(f"{bucket}/results").result()


def test_damage_in_the_bucket_is_found_and_mended(bucket: Bucket, tree: Path) -> None:
    settings = {"input": bucket.upload(tree), "output": f"{bucket}/results", "no_report": True, **SETTINGS}
    report = run(RunConfig(**settings))
    damaged = f"results/runs/{report.run_id}/features/part-00000.parquet"
    bucket.put(damaged, bucket.get(damaged)[:-1] + b"x")
    bucket.delete(f"results/runs/{report.run_id}/pca_model/weights.safetensors")
    problems = list(verify_output(settings["output"]))
    assert any(f"{bucket}/results/features/part-00000.parquet is damaged" in problem for problem in problems)
    assert any("weights.safetensors" in problem for problem in problems)
    run(RunConfig(**settings))
    assert not list(verify_output(settings["output"]))


def test_other_programs_read_what_the_pointer_names(bucket: Bucket, tree: Path) -> None:
    from pyarrow.fs import S3FileSystem

    run(RunConfig(input=str(tree), output=f"{bucket}/results", no_report=True, **SETTINGS))
    tables = f"{bucket.name}/results/{json.loads(bucket.get('results/run.json'))['tables']}"
    there = S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_REGION"],
        endpoint_override=os.environ["AWS_ENDPOINT_URL"],
    )
    assert len(pq.read_table(f"{tables}/features", filesystem=there)) == 15
    options = {
        "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "aws_region": os.environ["AWS_REGION"],
        "aws_endpoint_url": os.environ["AWS_ENDPOINT_URL"],
        "aws_allow_http": "true",
    }
    scores = polars.read_parquet(
        f"s3://{tables}/training_pca/**/*.parquet", hive_partitioning=True, storage_options=options
    )
    assert sorted(scores["label"].unique()) == ["a", "b"]


@pytest.mark.slow
def test_commands_that_use_a_result_take_addresses(
    bucket: Bucket, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"{bucket}/results"
    report = run(RunConfig(input=bucket.upload(tree), output=output, no_report=True, **SETTINGS))
    page = f"{output}/runs/{report.run_id}/report.html"
    for command, told in (
        (["verify", output], f"{output} is whole"),
        (["evaluate", output], "1-NN"),
        (["report", output], f"{page}: "),
        (["verify", output.replace("s3://", "s3a://")], "is whole"),
        (["export", output, "--onnx", str(tmp_path / "model.onnx")], "model.onnx: "),
    ):
        assert main(command) == 0, capsys.readouterr()
        assert told in capsys.readouterr().out
    assert page.removeprefix(f"{bucket}/") in bucket.keys
    # MLflow's libraries warn of themselves, and not in a process of their own.
    log = [sys.executable, "-m", "mission9", "log", output, "--mlflow", "local"]
    subprocess.run(log, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "mlflow.db").exists()


_DATAFRAMES = """
import sys
from mission9.errors import OutputError
from mission9.spark_pipeline import SparkImagePipeline

images, output = sys.argv[1:]
with SparkImagePipeline(weights="demo", max_reject_rate=0.5, master="local[1]", driver_memory="1g") as pipeline:
    features = pipeline.extract_features(pipeline.load_images(images))
    for row in features.orderBy("path").collect():
        print(row.path, row.reason)
    scores, _ = pipeline.apply_pca(features, 2)
    try:
        pipeline.save_pca_results(scores, output)
    except OutputError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.spark
def test_dataframes_of_images_in_a_bucket(bucket: Bucket, odd_tree: Path) -> None:
    # In a process of its own: workers know the environment in which Spark was started.
    command = [sys.executable, "-c", _DATAFRAMES, bucket.upload(odd_tree), f"{bucket}/results"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Training/a=b/日本.jpg None\n" in said
    assert "Training/a/broken.jpg truncated\nTraining/a/empty.jpg empty\n" in said
    assert "give one, or df.write.parquet" in said
