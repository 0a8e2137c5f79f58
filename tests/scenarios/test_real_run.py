"""The command on 4,000 real photographs with real weights: what the design promises, in numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.decomposition import PCA

from mission9 import PCAModel
from mission9.schema import vectors
from tests.conftest import REAL_WEIGHTS, SHARED, assert_close

pytestmark = [pytest.mark.real, pytest.mark.spark, pytest.mark.slow, pytest.mark.xdist_group("test_real_run")]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("real") / "out")
    command = [sys.executable, "-m", "mission9", "run", "--input", str(SHARED / "fruits-360")]
    done = subprocess.run(
        [*command, "--weights", str(REAL_WEIGHTS), "--output", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return folder


@pytest.fixture(scope="module")
def table(output: str) -> pd.DataFrame:
    return pd.read_parquet(f"{output}/features").set_index("path")


def test_every_image_is_featured(output: str, table: pd.DataFrame) -> None:
    with open(f"{output}/run.json") as file:
        report = json.load(file)
    assert report["splits"] == {
        "Test": {"listed": 1000, "featured": 1000, "rejected": 0, "reasons": {}},
        "Training": {"listed": 3000, "featured": 3000, "rejected": 0, "reasons": {}},
    }
    assert report["found"] == 4000 + sum(report["skipped"].values())
    assert len(table) == 4000
    assert table.index.is_unique


def test_features_are_the_golden_ones(table: pd.DataFrame) -> None:
    golden = np.load(SHARED / "golden" / "fruits-64.npz")
    found = np.stack([table.loc[path, "features"] for path in golden["paths"]])
    assert_close(found, golden["features"], cosine=0.99999, relative=1e-3)


def test_the_pca_is_sklearns_full_svd(output: str, table: pd.DataFrame) -> None:
    training = np.stack(table[table["split"] == "Training"]["features"]).astype(np.float64)
    wanted, model = PCA(50, svd_solver="full").fit(training), PCAModel.load(f"{output}/pca_model")
    np.testing.assert_allclose(model.explained_variance_ratio_, wanted.explained_variance_ratio_, atol=1e-6)
    for split in ("training", "test"):
        scores = pq.read_table(f"{output}/{split}_pca")
        rows = np.stack([table.loc[path, "features"] for path in scores["path"].to_pylist()]).astype(np.float64)
        right = wanted.transform(rows)
        columns = np.linalg.norm(vectors(scores["pca"]) - right, axis=0) / np.linalg.norm(right, axis=0)
        assert columns.max() <= 1e-4  # signs too: a flipped component would be off by 2
        if split == "training":
            assert np.abs(vectors(scores["pca"]).astype(np.float64).mean(0)).max() <= 1e-4


def test_files_are_few_and_rows_complete(output: str) -> None:
    assert len(os.listdir(f"{output}/training_pca")) == len(os.listdir(f"{output}/test_pca")) == 40
    assert all(len(os.listdir(f"{output}/training_pca/{label}")) == 1 for label in os.listdir(f"{output}/training_pca"))
    for split, count in (("training", 3000), ("test", 1000)):
        csv = pd.read_csv(f"{output}/{split}_pca_csv/part-00000.csv")
        assert len(csv) == len(pq.read_table(f"{output}/{split}_pca")) == count
        assert csv["path"].tolist() == sorted(csv["path"])
