"""Local copies of a bucket's results and models, and the mirror of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mission9.errors import StorageError
from mission9.output.bucket import results
from mission9.output.bucket.output import open_bucket_output
from mission9.output.open import output_at
from mission9.storage.s3 import objects
from mission9.storage.s3.address import Address
from tests.s3.conftest import Bucket


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("way", ["/{0}/owned", "../../../../../../owned", "a//owned", "./owned", "a\n/owned"])
def test_no_key_leads_out_of_the_folder_that_a_prefix_is_copied_to(bucket: Bucket, tmp_path: Path, way: str) -> None:
    way = way.format(tmp_path)
    bucket.put("m/pca_model/pca.json", b"{}")
    bucket.put_odd(f"m/pca_model/{way}", b"theirs")
    with pytest.raises(StorageError, match=r"pca_model holds .*owned', which mission9 never writes.*Delete it"):
        output_at(f"{bucket}/m/pca_model").model()
    bucket.put_odd(f"out/_state/int8/{way}", b"theirs")
    with (
        pytest.raises(StorageError, match=r"int8 holds .*owned', which mission9 never writes.*Delete it"),
        open_bucket_output(Address(bucket.name, "out"), overwrite=False),
    ):
        pass
    assert not [name for name in files_below(tmp_path) if "owned" in name]


FIRST, SECOND = "a" * 32, "b" * 32
TABLES = ("run.json", "features/part-00000.parquet", "pca_model/pca.json")


def put_result(bucket: Bucket, run_id: str) -> None:
    """The objects of a result, as far as copies know them, and the pointer to it."""
    for name in TABLES:
        bucket.put(f"r/runs/{run_id}/{name}", run_id.encode())
    bucket.put(f"r/runs/{run_id}/checksums.json", json.dumps(dict.fromkeys(TABLES, "")).encode())
    bucket.put("r/run.json", json.dumps({"tables": f"runs/{run_id}", "fingerprint": "0" * 16}).encode())


def of_run(folder: Path) -> list[str]:
    """The run of each table of a copy."""
    return [(folder / name).read_text() for name in TABLES]


def test_of_many_that_copy_at_once_each_gets_all_of_it(bucket: Bucket) -> None:
    put_result(bucket, FIRST)
    bucket.put_odd("m/pca_model/", b"")
    for number in range(6):
        bucket.put(f"m/pca_model/{number}.bin", bytes(100_000))

    def copy(number: int) -> list[str]:
        if number % 2:
            return files_below(output_at(f"{bucket}/m/pca_model").model())
        return of_run(output_at(f"{bucket}/r").result())

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(copy, range(24)))
    assert found == [[FIRST] * 3, [f"{number}.bin" for number in range(6)]] * 12


def test_a_result_that_is_replaced_while_it_is_copied_is_copied_anew(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_result(bucket, FIRST)
    there = results._objects

    def half_of(address: Address) -> Any:
        if FIRST in address.key:  # the run that replaces it has begun to delete it
            bucket.delete(f"r/runs/{FIRST}/features/part-00000.parquet")
            put_result(bucket, SECOND)
        return there(address)

    monkeypatch.setattr(results, "_objects", half_of)
    assert of_run(output_at(f"{bucket}/r").result()) == [SECOND] * 3


def test_half_a_result_is_none(bucket: Bucket) -> None:
    put_result(bucket, FIRST)
    bucket.delete(f"r/runs/{FIRST}/features/part-00000.parquet")
    with pytest.raises(StorageError, match=r"part-00000.parquet is missing .*: recreate it with mission9 run"):
        output_at(f"{bucket}/r").result()
    assert files_below(output_at(f"{bucket}/r").result(to_verify=True)) == [  # which says what is missing
        *("_state/checksums.json", "pca_model/pca.json", "run.json"),
    ]


def test_a_model_that_is_replaced_while_it_is_copied_is_copied_anew(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        bucket.put(f"m/pca_model/{name}", b"old")
    fetch = objects.fetch

    def fetch_and_replace(address: Address, file: Path) -> None:
        fetch(address, file)
        for name in "ab":
            bucket.put(f"m/pca_model/{name}", b"new")

    monkeypatch.setattr(results, "fetch", fetch_and_replace)
    folder = output_at(f"{bucket}/m/pca_model").model()
    assert [(folder / name).read_bytes() for name in "ab"] == [b"new"] * 2


def test_a_copy_stays_for_as_long_as_a_process_may_read_it(bucket: Bucket) -> None:
    put_result(bucket, FIRST)
    code = (
        "import sys; from mission9.output.open import output_at; print(output_at(sys.argv[1]).result(to_verify=True))"
    )
    ended = subprocess.run([sys.executable, "-c", code, f"{bucket}/r"], capture_output=True, text=True, check=True)
    assert of_run(Path(ended.stdout.strip())) == [FIRST] * 3
    first = output_at(f"{bucket}/r").result()
    assert not Path(ended.stdout.strip()).exists()
    put_result(bucket, SECOND)
    assert of_run(output_at(f"{bucket}/r").result()) == [SECOND] * 3
    assert of_run(first) == [FIRST] * 3
