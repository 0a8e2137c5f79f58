"""The notebook on a bucket, with the two settings that the original project names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.s3.conftest import Bucket
from tests.support.finished import write_fruits
from tests.support.notebooks import execute


@pytest.mark.spark
@pytest.mark.slow
def test_it_runs_on_a_bucket(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.upload(write_fruits(tmp_path / "fruits", varieties=6, training=12, test=4), "fruits-360")
    monkeypatch.setenv("MISSION9_WEIGHTS", "demo")
    monkeypatch.setenv("MISSION9_POLICY", "none")
    root = tmp_path / "repository"
    root.mkdir()
    config = {"DATASET_PATH": f"s3a://{bucket.name}/fruits-360/", "OUTPUT_PATH": f"s3a://{bucket.name}/results/"}
    told = execute(root, config)
    assert "50 components keep" in told
    assert told.count("image/png") == 3
    assert "results/run.json" in bucket.keys
    assert {path.name for path in root.iterdir()} == {"notebooks", "src", "mlflow.db", "mlruns"}


def test_a_typo_in_a_bucket_is_told(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mission9.errors import InputError
    from mission9.notebook import read_config

    monkeypatch.chdir(tmp_path)
    bucket.put("fruits-360/Training/a/1.jpg", b"")
    monkeypatch.setenv("MISSION9_POLICY", "none")
    for wrong in (f"s3a://{bucket.name}/fruit-360/", f"s3a://{bucket.name}-not/fruits-360/"):
        with pytest.raises(InputError, match=r"DATASET_PATH"):
            read_config({"DATASET_PATH": wrong})
    assert not list(tmp_path.iterdir())
