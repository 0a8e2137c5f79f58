"""The whole run: rows conserved, results whole, nothing done twice, and every label as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.decomposition import PCA

from mission9 import PCAModel, RunConfig, run
from mission9.erasure.erase import erase
from mission9.erasure.selection import ErasureRequest
from mission9.errors import ConfigError, InputError, OutputError, TooManyRejects
from mission9.output.layout import PAGE
from mission9.output.open import output_at
from mission9.output.report_file import page_problem
from mission9.results.projector import Projector
from mission9.results.verify import verify_output
from mission9.runners.base import Task
from mission9.runners.spark import SparkRunner
from mission9.schema import vectors
from mission9.storage.local.files import replace_folder
from tests.conftest import InProcessRunner
from tests.support import held_up
from tests.support.cluster import MEMORY, Cluster
from tests.support.finished import copy_of, with_changes, write_fruits, write_tree

ODD_LABELS = [
    "Apple Braeburn 1",
    "Pêche 🍑",
    "100% pur=jus",
    " a ",
    "#1+2",
    "a:b",
    "NULL",
    ".hidden-not",
    "_under",
    "null",
    "nan",
    "1e3",
    "2024-01-01",
    'it\'s "so"',
    "a\nb",
    "%41",
    "[x]{y}*?",
]


@pytest.fixture
def config(tree: Path, tmp_path: Path) -> RunConfig:
    """A run that is to come; without the page, which test_run.py of html_report is about."""
    return RunConfig(input=str(tree), output=str(tmp_path / "out"), weights="demo", components=3, no_report=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> RunConfig:
    """A finished run of the same images, with all that a run makes, for tests that change nothing of it."""
    folder = tmp_path_factory.mktemp("finished")
    tree = write_tree(folder / "images", pictures)
    config = RunConfig(input=str(tree), output=str(folder / "out"), weights="demo", components=3)
    assert run(config, InProcessRunner()).images_inferred == 15
    return config


@pytest.fixture
def done(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """The finished run and its images as a test's own; a next run makes no page."""
    return with_changes(copy_of(finished, tmp_path), no_report=True)


@pytest.fixture(scope="module")
def fewer(finished: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run of the same images to fewer components."""
    config = with_changes(finished, output=str(tmp_path_factory.mktemp("fewer") / "out"), components=2)
    run(config, InProcessRunner())
    return config


def features(config: RunConfig) -> pd.DataFrame:
    return pd.read_parquet(f"{config.output}/features").set_index("path").sort_index()


def result(config: RunConfig) -> dict[str, Any]:
    """Everything a run publishes but its times: rows as they are, CSV as bytes."""
    found: dict[str, Any] = {}
    for root, _, files in os.walk(config.output):
        if "_state" in root:
            continue
        for file in files:
            path = os.path.join(root, file)
            name = os.path.relpath(path, config.output)
            if file.endswith(".csv"):
                with open(path, "rb") as content:
                    found[name] = content.read()
            elif file.endswith(".parquet"):
                found[name] = pq.read_table(path, partitioning=None).to_pylist()
    return found


def test_the_layout_is_the_contract(finished: RunConfig) -> None:
    config = finished
    tables = {"features", "rejects", "pca_model", "training_pca", "training_pca_csv", "test_pca", "test_pca_csv"}
    assert set(os.listdir(config.output)) == tables | {"_state", "run.json", "report.html"}
    table = pq.read_table(f"{config.output}/features")
    assert table.schema.names == ["path", "split", "label", "width", "height", "bytes", "sha256", "features"]
    assert table.schema.field("features").type == pa.list_(pa.float32(), 1280)
    assert sorted(os.listdir(f"{config.output}/training_pca")) == ["label=a", "label=b"]
    assert pq.read_table(f"{config.output}/training_pca/label=a/part-00000.parquet").schema.names == [
        "path",
        "split",
        "pca",
    ]
    assert len(pd.read_parquet(f"{config.output}/rejects")) == 0
    report = json.loads(Path(config.output, "run.json").read_bytes())
    assert report["splits"]["Training"] == {"listed": 12, "featured": 12, "rejected": 0, "reasons": {}}
    assert report["splits"]["Test"]["featured"] == 3
    assert len(report["explained_variance_ratio"]) == report["n_components"] == 3
    assert set(report["seconds"]) >= {"list", "extract", "fit", "project"}
    assert report["versions"]["mission9"]
    assert report["fingerprint"]


def test_csv_has_numbers_in_columns_sorted_by_path(finished: RunConfig) -> None:
    table = pd.read_csv(f"{finished.output}/training_pca_csv/part-00000.csv")
    assert list(table.columns) == ["path", "label", "pc_1", "pc_2", "pc_3"]
    assert (table.dtypes[["pc_1", "pc_2", "pc_3"]] == np.float64).all()
    assert table["path"].tolist() == sorted(table["path"])
    assert len(table) == 12
    parquet = pq.read_table(f"{finished.output}/training_pca").sort_by("path")
    np.testing.assert_array_equal(table[["pc_1", "pc_2", "pc_3"]].to_numpy(np.float32), vectors(parquet["pca"]))


def test_scores_are_sklearns_of_the_features_fitted_on_training(finished: RunConfig) -> None:
    config, table = finished, features(finished)
    training = np.stack(table[table["split"] == "Training"]["features"]).astype(np.float64)
    wanted = PCA(3, svd_solver="full").fit(training)
    model = PCAModel.load(f"{config.output}/pca_model")
    np.testing.assert_allclose(model.explained_variance_ratio_, wanted.explained_variance_ratio_, atol=1e-6)
    for split in ("training", "test"):
        scores = pq.read_table(f"{config.output}/{split}_pca").sort_by("path")
        rows = np.stack([table.loc[path, "features"] for path in scores["path"].to_pylist()]).astype(np.float64)
        np.testing.assert_allclose(vectors(scores["pca"]), wanted.transform(rows), rtol=1e-4, atol=1e-4)


def test_a_saved_model_projects_an_image_where_the_run_put_it(finished: RunConfig) -> None:
    projector = Projector(f"{finished.output}/pca_model")
    table = pd.read_csv(f"{finished.output}/test_pca_csv/part-00000.csv")
    for path, *_, first, second, third in table.itertuples(index=False):
        found = projector(Path(finished.input) / path)
        np.testing.assert_allclose(found, [first, second, third], rtol=1e-3, atol=1e-3)


def test_a_second_run_computes_nothing_and_gives_the_same(done: RunConfig, in_process: InProcessRunner) -> None:
    first = result(done)
    assert run(done, in_process).images_inferred == 0
    assert result(done) == first


def test_a_broken_run_goes_on_where_it_stopped(config: RunConfig, tree: Path, in_process: InProcessRunner) -> None:
    class Breaks(InProcessRunner):
        def map(self, task: Task, count: int) -> list[bytes]:
            if count == 2:  # Test and Training, a shard each
                task(0)
                raise KeyboardInterrupt
            return super().map(task, count)

    with pytest.raises(KeyboardInterrupt):
        run(config, Breaks())
    assert not os.path.exists(f"{config.output}/run.json")
    assert not os.path.exists(f"{config.output}/features")
    assert run(config, in_process).images_inferred == 12


def test_verify_content_finds_what_size_and_time_do_not_tell(
    done: RunConfig, pictures: list[bytes], in_process: InProcessRunner
) -> None:
    config, tree = done, Path(done.input)
    before = features(config)
    changed = tree / "Test/a/0.jpg"
    facts, other = changed.stat(), pictures[9]
    assert facts.st_size != len(other)
    (tree / "Test/a/1.jpg").write_bytes(bytes(facts.st_size))
    changed.write_bytes(other[: facts.st_size].ljust(facts.st_size, b"\0"))
    os.utime(changed, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (tree / "Test/a/1.jpg").write_bytes(pictures[1])
    assert run(config, in_process).images_inferred == 1  # the one with another time
    assert features(config).loc["Test/a/0.jpg", "sha256"] == before.loc["Test/a/0.jpg", "sha256"]
    checked = with_changes(config, verify_content=True, max_reject_rate=0.2)
    assert run(checked, in_process).images_inferred == 1
    after = features(config)
    assert (
        "Test/a/0.jpg" not in after.index or after.loc["Test/a/0.jpg", "sha256"] != before.loc["Test/a/0.jpg", "sha256"]
    )


@pytest.mark.slow
def test_int8_has_a_table_of_its_own_and_tells_its_fidelity(done: RunConfig, in_process: InProcessRunner) -> None:
    config, exact = done, json.loads(Path(done.output, "run.json").read_bytes())
    settings = with_changes(config, precision="int8")
    first = run(settings, in_process)
    assert first.fingerprint != exact["fingerprint"]
    assert first.images_inferred == 15
    assert first.fidelity["images"] == 15
    assert 0.8 < first.fidelity["cosine_min"] <= first.fidelity["cosine_mean"] < 1
    assert {"accuracy_1nn", "accuracy_1nn_float32"} < first.fidelity.keys()
    second = run(settings, in_process)  # by the calibration that was kept
    assert (second.fingerprint, second.images_inferred, second.fidelity) == (first.fingerprint, 0, first.fidelity)
    assert json.loads(Path(config.output, "run.json").read_text())["fidelity"] == first.fidelity
    table = pd.read_csv(f"{config.output}/test_pca_csv/part-00000.csv")
    projector = Projector(f"{config.output}/pca_model")
    for path, *_, one, two, three in table.itertuples(index=False):
        np.testing.assert_allclose(projector(Path(config.input) / path), [one, two, three], rtol=1e-3, atol=1e-3)
    assert run(config, in_process).images_inferred == 0  # float32 features are still there


def test_torch_in_bfloat16_tells_its_fidelity(config: RunConfig, tree: Path, in_process: InProcessRunner) -> None:
    shutil.rmtree(tree / "Training" / "a")  # what is left is seven images: CPUs without the instructions are slow
    shutil.rmtree(tree / "Test" / "a")
    report = run(with_changes(config, precision="bf16", engine="torch"), in_process)
    assert report.fidelity["images"] == 7
    assert report.engine["precision"] == "bfloat16"
    assert 0.99 < report.fidelity["cosine_min"] < 1


def test_an_existing_model_projects_without_a_fit(
    finished: RunConfig, tmp_path: Path, in_process: InProcessRunner
) -> None:
    config, tree = finished, Path(finished.input)
    given = {name: value for name, value in config.model_dump().items() if name != "components"}
    given |= {"input": str(_only_test(tree, tmp_path)), "output": str(tmp_path / "later"), "no_report": True}
    later = RunConfig(**(given | {"pca_model": f"{config.output}/pca_model"}))
    report = run(later, in_process)
    assert (report.fitted_on, report.n_components) == ("", 3)
    tables = [pd.read_csv(f"{c.output}/test_pca_csv/part-00000.csv") for c in (config, later)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert PCAModel.load(f"{later.output}/pca_model").n_samples_ == 0  # its moments stay with the images they are of
    with pytest.raises(ConfigError, match="give --weights demo --preprocess stretch --precision float32"):
        run(RunConfig(**(given | {"pca_model": f"{config.output}/pca_model", "preprocess": "crop"})), in_process)
    with pytest.raises(ConfigError, match="leave --components away"):
        RunConfig(**(given | {"pca_model": f"{config.output}/pca_model", "components": 3}))


def test_changed_new_and_deleted_images(done: RunConfig, pictures: list[bytes], in_process: InProcessRunner) -> None:
    config, tree = done, Path(done.input)
    (tree / "Test/a/0.jpg").write_bytes(pictures[9])
    (tree / "Test/b/9.jpg").write_bytes(pictures[8])
    (tree / "Training/a/5.jpg").unlink()
    before = features(config)
    run(config, in_process)
    after = features(config)
    assert set(after.index) == set(before.index) - {"Training/a/5.jpg"} | {"Test/b/9.jpg"}
    assert after.loc["Test/a/0.jpg", "sha256"] != before.loc["Test/a/0.jpg", "sha256"]
    fresh = with_changes(config, output=config.output + "2")
    run(fresh, in_process)
    for path, row in features(fresh).iterrows():
        np.testing.assert_allclose(after.loc[path, "features"], row["features"], rtol=1e-5, atol=1e-5)


def test_other_settings_never_mix_with_what_is_there(done: RunConfig, in_process: InProcessRunner) -> None:
    assert run(with_changes(done, preprocess="crop"), in_process).images_inferred == 15
    assert run(done, in_process).images_inferred == 0
    assert run(with_changes(done, overwrite=True), in_process).images_inferred == 15


def test_a_share_of_variance(done: RunConfig, in_process: InProcessRunner) -> None:
    report = run(with_changes(done, components=0.9), in_process)
    assert 1 < report.n_components < 12
    assert report.variance_kept >= 0.9
    assert report.variance_kept - report.explained_variance_ratio[-1] <= 0.9


def test_bad_images_are_rows_in_rejects(
    config: RunConfig, tree: Path, pictures: list[bytes], in_process: InProcessRunner
) -> None:
    (tree / "Training/a/empty.jpg").touch()
    (tree / "Training/a/text.jpg").write_text("hello")
    (tree / "Test/b/short.jpg").write_bytes(pictures[0][:900])
    (tree / "Test/b/gone.jpg").symlink_to(tree / "nowhere")
    report = run(with_changes(config, max_reject_rate=0.5), in_process)
    rejects = pd.read_parquet(f"{config.output}/rejects").set_index("path")
    assert rejects["reason"].to_dict() == {
        "Test/b/gone.jpg": "vanished",
        "Test/b/short.jpg": "truncated",
        "Training/a/empty.jpg": "empty",
        "Training/a/text.jpg": "not_an_image",
    }
    assert set(rejects.columns) == {"split", "label", "stage", "reason", "message", "bytes"}
    assert (report.listed, report.featured, report.rejected) == (19, 15, 4)
    assert len(features(config)) == 15


def test_too_many_rejects_fail_the_run_and_say_where_they_are(
    config: RunConfig, tree: Path, in_process: InProcessRunner
) -> None:
    for n in range(3):
        (tree / f"Test/b/bad{n}.jpg").write_text("bad")
    with pytest.raises(TooManyRejects, match=r"3 of 18 .*3 not_an_image") as caught:
        run(config, in_process)
    assert f"{config.output}/rejects" in str(caught.value)
    assert len(pd.read_parquet(f"{config.output}/rejects")) == 3
    assert not os.path.exists(f"{config.output}/run.json")


def test_too_many_rejects_leave_an_earlier_result_as_it_was(done: RunConfig, in_process: InProcessRunner) -> None:
    before = result(done)
    Path(done.input, "Test/b/bad.jpg").write_text("bad")
    with pytest.raises(TooManyRejects, match="_state/rejects"):
        run(done, in_process)
    assert result(done) == before


def test_nothing_but_rejects_fails_whatever_the_limit(tmp_path: Path, in_process: InProcessRunner) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    for n in range(3):
        (tmp_path / "in" / "a" / f"{n}.jpg").write_text("bad")
    config = RunConfig(
        input=str(tmp_path / "in"), output=str(tmp_path / "out"), weights="demo", components=1, max_reject_rate=1
    )
    with pytest.raises(TooManyRejects, match="3 of 3"):
        run(config, in_process)


def test_requests_that_cannot_be_carried_out_write_nothing(
    config: RunConfig, tree: Path, tmp_path: Path, in_process: InProcessRunner
) -> None:
    def refused(error: type[Exception], message: str, **settings: Any) -> None:
        with pytest.raises(error, match=message):
            run(with_changes(config, **settings), in_process)
        assert not os.path.exists(config.output)

    refused(InputError, "there is no folder", input=str(tmp_path / "nowhere"))
    refused(InputError, "is a file", input=str(tree / "Test/a/0.jpg"))
    (tmp_path / "empty").mkdir()
    refused(InputError, "no images", input=str(tmp_path / "empty"))
    refused(ConfigError, "13 components of 12 images: give 1 to 12", components=13)
    refused(InputError, "none of Training", input=str(_only_test(tree, tmp_path)))
    assert in_process.tasks == 0


def _only_test(tree: Path, tmp_path: Path) -> Path:
    shutil.copytree(tree / "Test", tmp_path / "only" / "Test")
    return tmp_path / "only"


def test_a_folder_of_others_is_not_touched_unless_asked(config: RunConfig, in_process: InProcessRunner) -> None:
    os.makedirs(config.output)
    with open(f"{config.output}/thesis.txt", "w") as file:
        file.write("years of work")
    with pytest.raises(OutputError, match=r"holds thesis.txt"):
        run(config, in_process)
    assert os.listdir(config.output) == ["thesis.txt"]
    run(with_changes(config, overwrite=True), in_process)
    assert Path(config.output, "thesis.txt").read_text() == "years of work"


def test_folders_of_others_beside_a_result_stay(done: RunConfig, in_process: InProcessRunner) -> None:
    theirs = Path(done.output, "customer_pca")
    theirs.mkdir()
    (theirs / "data.txt").write_text("precious")
    run(done, in_process)
    assert (theirs / "data.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["features", "validation_pca"])
def test_a_folder_of_others_under_our_name_is_never_replaced(
    name: str, config: RunConfig, in_process: InProcessRunner
) -> None:
    theirs = Path(config.output, name, "z.csv")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    forced = with_changes(config, overwrite=True)
    with pytest.raises(OutputError, match=f"{name} was not written by mission9"):
        run(forced, in_process)
    assert os.listdir(config.output) == [name]
    assert theirs.read_text() == "precious"


@pytest.mark.parametrize("moment", range(1, 9))
def test_killed_while_publishing_the_next_run_has_the_new_result_whole(
    moment: int,
    finished: RunConfig,
    fewer: RunConfig,
    tmp_path: Path,
    in_process: InProcessRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = with_changes(copy_of(finished, tmp_path), components=2)
    calls = iter(range(1, 100))

    def dying(*arguments: Any, **options: Any) -> None:
        if next(calls) == moment:
            raise KeyboardInterrupt
        replace_folder(*arguments, **options)

    monkeypatch.setattr("mission9.output.local.replace_folder", dying)
    try:
        run(config, in_process)
    except KeyboardInterrupt:
        assert not Path(config.output, "run.json").exists()
    monkeypatch.undo()
    with output_at(config.output).open(overwrite=False):
        pass
    assert Path(config.output, "run.json").exists()
    run_id = json.loads(Path(config.output, "run.json").read_bytes())["run_id"]
    assert page_problem(Path(config.output, PAGE), run_id) is None
    assert not Path(config.output, "_state", "ready").exists()
    assert result(config) == result(fewer)


def test_a_run_of_another_input_that_fails_leaves_the_result_and_what_it_is_made_of(
    done: RunConfig, tmp_path: Path, in_process: InProcessRunner, pictures: list[bytes]
) -> None:
    config = done
    before, other = result(config), tmp_path / "other" / "Training" / "x"
    other.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        (other / f"{number}.jpg").write_bytes(picture if number < 7 else b"no image")
    with pytest.raises(TooManyRejects):
        run(with_changes(config, input=str(tmp_path / "other")), in_process)
    assert result(config) == before
    assert not list(verify_output(config.output))
    assert run(config, in_process).images_inferred == 0
    assert result(config) == before
    with pytest.raises(TooManyRejects):
        run(with_changes(config, input=str(tmp_path / "other")), in_process)
    receipt = erase(config.output, ErasureRequest("erase", ("Training/a/0.jpg",)))
    assert receipt is not None
    assert receipt.result == {"images": 14, "model": "moments of the erased images subtracted, refitted"}
    assert not list(verify_output(config.output))


def test_results_may_lie_below_the_images_but_not_among_them(
    config: RunConfig, tree: Path, in_process: InProcessRunner
) -> None:
    below = with_changes(config, output=str(tree / "results"))
    assert run(below, in_process).images_inferred == 15
    assert run(below, in_process).images_inferred == 0
    among = with_changes(config, output=str(tree), overwrite=True)
    with pytest.raises(OutputError, match="among the images"):
        run(among, in_process)


def test_the_input_is_one_folder_however_it_is_named(
    config: RunConfig, tree: Path, tmp_path: Path, in_process: InProcessRunner
) -> None:
    # "link/.." is the folder that holds the link's target, not the one that holds the link.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(tree / "Test")
    odd = with_changes(config, input=str(tmp_path / "elsewhere" / "link" / ".."))
    assert run(odd, in_process).featured == 15


def test_a_renamed_folder_gives_the_new_label(
    tmp_path: Path, pictures: list[bytes], in_process: InProcessRunner
) -> None:
    (tmp_path / "apples").mkdir()
    for n in range(3):
        (tmp_path / "apples" / f"{n}.jpg").write_bytes(pictures[n])
    for name in ("apples", "pears"):
        settings = {"input": str(tmp_path / name), "output": str(tmp_path / "out"), "weights": "demo"}
        config = RunConfig(**settings, components=1, no_report=True)
        if name == "pears":
            (tmp_path / "apples").rename(tmp_path / "pears")
        run(config, in_process)
        assert os.listdir(tmp_path / "out" / "all_pca") == [f"label={name}"]


def test_too_few_images_left_to_fit_on_are_told_with_the_rejects(
    config: RunConfig, tree: Path, in_process: InProcessRunner
) -> None:
    for path in (tree / "Training").rglob("*.jpg"):
        path.write_text("bad")
    with pytest.raises(TooManyRejects, match="12 of 15 .*at least 2 images.*rejects"):
        run(with_changes(config, max_reject_rate=1), in_process)


def test_an_output_that_is_a_file_or_in_use(config: RunConfig, in_process: InProcessRunner) -> None:
    with output_at(config.output).open(overwrite=False), pytest.raises(OutputError, match="another run.*pid"):
        run(config, in_process)
    with open(config.output + "file", "w"), pytest.raises(OutputError, match="is a file"):
        run(with_changes(config, output=config.output + "file"), in_process)


def test_tables_of_splits_that_are_gone_go(done: RunConfig, in_process: InProcessRunner) -> None:
    assert os.path.exists(f"{done.output}/test_pca")
    assert os.path.exists(f"{done.output}/test_pca_csv")
    shutil.rmtree(Path(done.input, "Test"))
    run(done, in_process)
    assert not os.path.exists(f"{done.output}/test_pca")
    assert not os.path.exists(f"{done.output}/test_pca_csv")


def label_tree(root: Path, labels: list[str], pictures: list[bytes], splits: Sequence[str]) -> Path:
    for n, label in enumerate(labels):
        for split in splits:
            folder = root / split / label
            folder.mkdir(parents=True)
            (folder / "1.jpg").write_bytes(pictures[n % 10])
            (folder / "2.jpg").write_bytes(pictures[(n + 1) % 10])
    return root


@pytest.mark.parametrize("labels", [ODD_LABELS, ["001", "002", "010", "1"]], ids=["odd", "digits"])
def test_labels_come_back_as_they_were_everywhere(
    labels: list[str], tmp_path: Path, pictures: list[bytes], spark: SparkSession
) -> None:
    tree = label_tree(tmp_path / "in", labels, pictures, splits=["Training"])
    config = RunConfig(input=str(tree), output=str(tmp_path / "out"), weights="demo", components=2, no_report=True)
    run(config, SparkRunner(spark, 2))
    folder = f"{config.output}/training_pca"
    wanted = {f"Training/{label}/{n}.jpg": label for label in labels for n in (1, 2)}
    assert len(os.listdir(folder)) == len(labels)

    text = ds.partitioning(pa.schema([("label", pa.string())]), flavor="hive")
    table = pd.read_parquet(folder, partitioning=text)
    assert dict(zip(table["path"], table["label"], strict=True)) == wanted

    query = f"select path, label from read_parquet('{folder}/*/*', hive_partitioning=true, hive_types_autocast=false)"
    assert dict(duckdb.connect().execute(query).fetchall()) == wanted

    frame = pl.read_parquet(f"{folder}/", hive_schema={"label": pl.String})
    assert dict(zip(frame["path"], frame["label"], strict=True)) == wanted

    rows = spark.read.schema("path string, split string, pca array<float>, label string").parquet(folder).collect()
    assert {row.path: row.label for row in rows} == wanted
    assert all(len(row.pca) == 2 for row in rows)

    lines = pd.read_csv(f"{folder}_csv/part-00000.csv", dtype={"label": str}, keep_default_na=False)
    assert dict(zip(lines["path"], lines["label"], strict=True)) == wanted


def test_labels_that_mean_null_or_do_not_fit_are_rejects_that_say_why(
    tmp_path: Path, pictures: list[bytes], in_process: InProcessRunner
) -> None:
    labels = ["a", "b", "__HIVE_DEFAULT_PARTITION__", "x" * 255]
    config = RunConfig(
        input=str(label_tree(tmp_path / "in", labels, pictures, splits=["Training", "Test"])),
        output=str(tmp_path / "out"),
        weights="demo",
        components=2,
        max_reject_rate=0.9,
        no_report=True,
    )
    report = run(config, in_process)
    assert report.reasons == {"unusable_label": 8}
    rejects = pd.read_parquet(f"{config.output}/rejects")
    assert rejects["message"].str.contains("for null|exceeds the").all()


FRUITS = 80  # images, in ten shards of eight where SHARD_IMAGES says so: more than there are partitions
SHARD_IMAGES = 8


@pytest.fixture(scope="module")
def undivided(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run of a small sample in one process, a shard for each split."""
    folder = tmp_path_factory.mktemp("undivided")
    images = write_fruits(folder / "fruits", varieties=8, training=8, test=2)
    config = RunConfig(input=str(images), output=str(folder / "out"), weights="demo", components=5, no_report=True)
    assert run(config, InProcessRunner()).images_inferred == FRUITS
    return config


@pytest.fixture
def divided(undivided: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run of the same that is to come, of many shards, with every stage on the workers."""
    monkeypatch.setattr("mission9.pipeline.run.SMALL_TABLE", 0)
    monkeypatch.setattr("mission9.models.extraction.SHARD_IMAGES", {"cpu": SHARD_IMAGES})
    return with_changes(undivided, output=str(tmp_path / "out"))


def assert_same_tables(one: RunConfig, other: RunConfig) -> None:
    first, second = features(one), features(other)
    assert len(first) == FRUITS
    assert first.index.equals(second.index)
    np.testing.assert_allclose(np.stack(first["features"]), np.stack(second["features"]), rtol=1e-5, atol=1e-5)
    for split in ("training", "test"):
        tables = [pd.read_csv(f"{c.output}/{split}_pca_csv/part-00000.csv") for c in (one, other)]
        assert tables[0][["path", "label"]].equals(tables[1][["path", "label"]])
        np.testing.assert_allclose(tables[0].iloc[:, 2:], tables[1].iloc[:, 2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("partitions", [1, 7])
def test_the_number_of_partitions_changes_nothing(
    partitions: int, undivided: RunConfig, divided: RunConfig, spark: SparkSession
) -> None:
    report = run(divided, SparkRunner(spark, 2, partitions=partitions))
    assert (report.images_inferred, report.shards) == (FRUITS, FRUITS // SHARD_IMAGES)
    assert_same_tables(undivided, divided)


def test_local_worker_processes_give_the_same(undivided: RunConfig, divided: RunConfig) -> None:
    report = run(with_changes(divided, runner="local", workers=2))
    assert (report.images_inferred, report.shards) == (FRUITS, FRUITS // SHARD_IMAGES)
    assert_same_tables(undivided, divided)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master on the loopback with two worker processes of one core each, for one command after the other."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.mark.spark
@pytest.mark.slow
def test_a_cluster_of_two_worker_processes_gives_the_same(
    undivided: RunConfig, tmp_path: Path, cluster: Cluster
) -> None:
    """The command itself, on separate processes that a master hands tasks to."""
    clustered = with_changes(undivided, output=str(tmp_path / "out"))
    command = [sys.executable, "-m", "mission9", *words_of(clustered, "--master", cluster.master)]
    done = subprocess.run(command, env=os.environ | MEMORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert cluster.master in done.stderr
    assert_same_tables(undivided, clustered)


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--precision", "int8"]], ids=["float32", "int8"])
def test_a_spark_connect_server_gives_the_same(
    undivided: RunConfig, options: list[str], tmp_path: Path, connect_server: str
) -> None:
    """The command itself, whose side has no JVM; its bar shows how far the server's workers are."""
    remote = with_changes(undivided, output=str(tmp_path / "out"))
    command = [sys.executable, "-m", "mission9", *words_of(remote, "--master", connect_server, *options)]
    done = subprocess.run(command, env=os.environ | {"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"on {connect_server}" in done.stderr
    if not options:
        assert_same_tables(undivided, remote)


def words_of(config: RunConfig, *options: str) -> list[str]:
    """The command line of a run with these settings."""
    places = ["--input", config.input, "--output", config.output]
    return ["run", *places, "--weights", "demo", "--components", "5", "--no-report", *options]


# The first try of a shard has all of its rows when it is held up; it commits them after a second try has done so, which
# does not end before: what Spark ends as soon as one of the two has ended would not get so far.
COMMITTED_TWICE = """
    def _commit(self, shard, features, rejects):
        from pyspark import TaskContext
        twice = self.folder.parent / "twice"
        is_straggler = (shard.number, shard.first) == (0, 0) and TaskContext.get().attemptNumber() == 0
        while is_straggler and read_marker(self.folder, shard.key) is None:
            time.sleep(0.01)
        super()._commit(shard, features, rejects)
        if is_straggler:
            twice.write_text("the straggler has committed")
        while (shard.number, shard.first) == (0, 0) and not twice.exists():
            time.sleep(0.01)
"""


@pytest.mark.spark
@pytest.mark.slow
def test_a_task_that_spark_starts_twice_gives_no_row_twice(
    undivided: RunConfig, tmp_path: Path, cluster: Cluster
) -> None:
    """A worker is held up until the copy of its task has committed the same shard, and then it goes on."""
    settings = tmp_path / "conf" / "spark-defaults.conf"
    settings.parent.mkdir()
    (tmp_path / "events").mkdir()
    speculation = {"": "true", ".interval": "50ms", ".quantile": "0.1", ".multiplier": "1.01"}
    speculation |= {".minTaskRuntime": "1ms", ".efficiency.enabled": "false"}
    lines = [f"spark.speculation{name} {value}" for name, value in speculation.items()]
    lines += ["spark.eventLog.enabled true", "spark.eventLog.compress false", f"spark.eventLog.dir {tmp_path}/events"]
    settings.write_text("\n".join(lines))
    clustered = with_changes(undivided, output=str(tmp_path / "out"))
    command = held_up.command(
        COMMITTED_TWICE, *words_of(clustered, "--master", cluster.master), shard_images=SHARD_IMAGES
    )
    environment = os.environ | MEMORY | {"SPARK_CONF_DIR": str(settings.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = [file.read_text() for file in (tmp_path / "events").rglob("*") if file.is_file()]
    assert any('"Speculative":true' in text for text in events)
    assert Path(clustered.output, "_state", "shards", "twice").exists()
    assert_same_tables(undivided, clustered)
    assert list(verify_output(clustered.output)) == []


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", pytest.param("spark", marks=pytest.mark.spark)])
def test_killed_at_half_the_next_run_computes_the_rest_alone(
    runner: str, undivided: RunConfig, tmp_path: Path, in_process: InProcessRunner
) -> None:
    again = with_changes(undivided, output=str(tmp_path / "out"))
    words = words_of(again, "--runner", runner, "--workers", "2", "--driver-memory", "2g")
    command = held_up.command(held_up.UP_TO_THE_SECOND, *words, shard_images=SHARD_IMAGES)

    def markers() -> list[Path]:
        assert process.poll() is None
        return list(Path(again.output).glob("_state/shards/*/[0-9a-f]*.json"))

    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        held_up.wait_until(lambda: len(markers()) == 2)
        processes = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
    # Spark's Python workers, of another process group, end when they find the JVM gone.
    assert psutil.wait_procs(processes, timeout=120)[1] == []
    assert not Path(again.output, "run.json").exists()
    assert not Path(again.output, "features").exists()
    done = sum(
        json.loads(marker.read_text())["features"]["rows"]
        for marker in Path(again.output).glob("_state/shards/*/*.json")
    )
    assert done == 2 * SHARD_IMAGES
    assert run(again, in_process).images_inferred == FRUITS - done
    assert_same_tables(undivided, again)
