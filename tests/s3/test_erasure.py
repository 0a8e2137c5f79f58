"""Erasure from buckets that keep versions: nothing of an erased image is left in any version of any object."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.crypto.pseudonyms import Pseudonyms
from mission9.erasure.erase import erase
from mission9.erasure.receipt import Receipt
from mission9.erasure.selection import ErasureRequest
from mission9.errors import OutputError
from mission9.output.bucket.mirror import mirror_of
from mission9.output.bucket.output import open_bucket_output
from mission9.output.layout import PAGE
from mission9.output.open import output_at
from mission9.pipeline.run import run
from mission9.results.reader import Results
from mission9.results.verify import verify_output
from mission9.storage.s3.address import Address
from tests.s3.conftest import Bucket
from tests.s3.moto import KEYS, make_bucket, moto_server

pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'mission9[s3]'")

ERASED = ["Test/a/1.jpg", "Training/a/0.jpg", "Training/b/cut é.jpg"]
SETTINGS: dict[str, Any] = {"weights": "demo", "components": 3, "max_reject_rate": 0.5, "policy": "none"}


class Versioned:
    """A bucket that keeps versions, on a server that boto3 reaches."""

    def __init__(self, url: str, name: str, keys: dict[str, str]) -> None:
        import boto3
        from botocore.config import Config

        own = Config(s3={"addressing_style": "path"})
        names = {key.lower(): value for key, value in keys.items()}
        self.client = boto3.client("s3", endpoint_url=url, region_name="eu-west-1", config=own, **names)
        self.name = name
        self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})

    def upload(self, folder: Path) -> str:
        for _ in range(2):  # each image has an old version
            for file in folder.rglob("*.jpg"):
                key = f"images/{file.relative_to(folder)}"
                self.client.put_object(Bucket=self.name, Key=key, Body=file.read_bytes())
        return f"s3://{self.name}/images"

    def versions(self) -> Iterator[tuple[str, str]]:
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.name):
            for found in page.get("Versions", []) + page.get("DeleteMarkers", []):
                yield found["Key"], found["VersionId"]

    def names_in(self, names: list[str]) -> set[str]:
        """The names found in any version of any object, or in its key."""
        found = set()
        markers = {
            (each["Key"], each["VersionId"])
            for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.name)
            for each in page.get("DeleteMarkers", [])
        }
        for key, version in self.versions():
            found |= {name for name in names if key.endswith(name)}
            if (key, version) in markers:
                continue
            content = self.client.get_object(Bucket=self.name, Key=key, VersionId=version)["Body"].read()
            texts = repr(pq.read_table(io.BytesIO(content)).to_pylist()) if key.endswith(".parquet") else ""
            found |= {name for name in names if name.encode() in content or name in texts}
        return found


@pytest.fixture(params=["swift", "moto"])
def versioned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Versioned]:
    if request.param == "swift":
        bucket: Bucket = request.getfixturevalue("bucket")
        keys = {name: os.environ[name] for name in KEYS}
        yield Versioned(bucket.server.endpoint, bucket.name, keys)
        return
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with moto_server() as url:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url, "AWS_REGION": "eu-west-1"}.items():
            monkeypatch.setenv(name, value)
        yield Versioned(url, make_bucket(url).name, KEYS)


@pytest.fixture
def images(tree: Path, pictures: list[bytes]) -> Path:
    (tree / ERASED[-1]).write_bytes(pictures[0][:300])
    return tree


def erased_from(place: str, **settings: Any) -> Receipt | None:
    return erase(place, ErasureRequest("erase", ERASED, Path("ids.txt"), **settings))


@pytest.mark.slow
def test_nothing_is_left_in_any_version(versioned: Versioned, images: Path, tmp_path: Path) -> None:
    source, place = versioned.upload(images), f"s3://{versioned.name}/results"
    for components in (4, 3):  # the first result is deleted, and kept as old versions
        run(RunConfig(input=source, output=place, **SETTINGS | {"components": components}))
    Results.of(place)  # a copy in the user's cache
    models = [
        output_at(f"{address}/pca_model").model() for address in (place, f"{place}/runs/{Results.of(place).root.name}")
    ]
    assert all(model.is_dir() for model in models)
    assert versioned.names_in(ERASED) == set(ERASED)
    receipt = erased_from(place, with_source=True, input=source)
    assert receipt is not None
    assert receipt.source["versions"] == 2 * len(ERASED)
    assert receipt.old_versions > 0
    assert receipt.result["model"] == "moments of the erased images subtracted, refitted"
    assert versioned.names_in(ERASED) == set()
    assert not any(model.exists() for model in models)
    cache = Path(os.environ["XDG_CACHE_HOME"])
    texts = [repr(pq.read_table(file).to_pylist()) for file in cache.rglob("*.parquet")]
    assert not [name for name in ERASED for text in texts if name in text]
    assert not list(verify_output(place))
    assert main(["verify", place]) == 0
    assert erased_from(place, with_source=True, input=source) is None
    for file in (images / name for name in ERASED):  # restored from a backup by mistake
        key = f"images/{file.relative_to(images)}"
        versioned.client.put_object(Bucket=versioned.name, Key=key, Body=file.read_bytes())
    report = run(RunConfig(input=source, output=place, **SETTINGS))
    assert report.images_inferred == 0
    assert report.skipped == {"(erased)": 3}


@pytest.mark.slow
def test_retain_deletes_what_it_erased_before(versioned: Versioned, images: Path) -> None:
    source, place = versioned.upload(images), f"s3://{versioned.name}/results"
    run(RunConfig(input=source, output=place, **SETTINGS))
    time.sleep(2)  # servers tell whole seconds
    old = 0.5 / 86_400
    assert erase(place, ErasureRequest("retain", days=old)) is not None
    versioned.client.delete_object(Bucket=versioned.name, Key=f"images/{ERASED[0]}")  # old versions are left
    time.sleep(2)  # its deletion is a change, and must be as old as is asked for
    with_source = ErasureRequest("retain", days=old, with_source=True, input=source)  # no result is left that says it
    receipt = erase(place, with_source)
    assert receipt is not None
    assert receipt.source["versions"] == 2 * 16 + 1
    assert not [key for key, _ in versioned.versions() if key.startswith("images/")]
    assert erase(place, with_source) is None


@pytest.mark.slow
def test_another_machine_goes_on(versioned: Versioned, images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    source, place = versioned.upload(images), f"s3://{versioned.name}/results"
    run(RunConfig(input=source, output=place, **SETTINGS))
    versioned.client.put_object(Bucket=versioned.name, Key="results/notes.txt", Body=ERASED[0].encode())
    assert main(["erase", place, "--ids", str(ids_file(tmp_path))]) == 1
    versioned.client.delete_object(Bucket=versioned.name, Key="results/notes.txt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    receipt = erased_from(place)
    assert receipt is not None
    assert "the images themselves (--source deletes them)" in receipt.not_reached
    left = {key for key, _ in versioned.versions() if key.startswith("results/")}
    assert not [key for key in left if key.endswith("notes.txt")]
    assert not list(verify_output(place))
    content = versioned.client.get_object(Bucket=versioned.name, Key=f"results/{receipt.file}")["Body"].read()
    assert len(json.loads(content)["images"]) == 3


@pytest.mark.slow
def test_by_pseudonyms(bucket: Bucket, images: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("planted-secret-of-this-test")
    place, settings = f"{bucket}/results", SETTINGS | {"pseudonymise": str(tmp_path / "key")}
    run(RunConfig(input=bucket.upload(images), output=place, **settings))
    pseudonyms = Pseudonyms.of(str(tmp_path / "key"))
    assert pseudonyms is not None
    assert not list(verify_output(place, pseudonyms))
    assert not list(verify_output(place))
    tables = [key for key in bucket.keys if "/runs/" in key]
    assert not [key for key in tables for name in ERASED if name.encode() in bucket.get(key)]
    ids = [pseudonyms.name(name) for name in ERASED]
    receipt = erase(place, ErasureRequest("erase", ids, pseudonyms=pseudonyms))
    assert receipt is not None
    assert (receipt.erased, receipt.rows_of_shards) == (3, 3)
    assert not list(verify_output(place, pseudonyms))
    assert not [key for key in bucket.keys for name in [*ids, *ERASED] if name.encode() in bucket.get(key)]


def test_it_refuses_beside_a_run(bucket: Bucket, images: Path) -> None:
    place = f"{bucket}/results"
    run(RunConfig(input=str(images), output=place, **SETTINGS))
    with (
        open_bucket_output(Address.of(place), overwrite=False),
        pytest.raises(OutputError, match="another run is writing"),
    ):
        erased_from(place)


@pytest.mark.slow
def test_uploads_that_never_ended_are_aborted(versioned: Versioned, images: Path) -> None:
    place, client = f"s3://{versioned.name}/results", versioned.client
    run(RunConfig(input=str(images), output=place, **SETTINGS))
    for key in ("results/runs/0/report.html", "results/notes.txt", "results-beside/report.html"):
        upload = client.create_multipart_upload(Bucket=versioned.name, Key=key)["UploadId"]
        client.upload_part(Bucket=versioned.name, Key=key, UploadId=upload, PartNumber=1, Body=ERASED[0].encode())
    receipt = erased_from(place)
    assert receipt is not None
    assert receipt.unfinished_uploads == 2
    left = client.list_multipart_uploads(Bucket=versioned.name).get("Uploads", [])
    assert [each["Key"] for each in left] == ["results-beside/report.html"]


@pytest.mark.slow
def test_no_page_or_table_of_a_result_before_comes_back(
    bucket: Bucket, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no page")

    def pages() -> dict[str, str]:
        there = [key for key in bucket.keys if key.endswith(PAGE)]
        return {key: re.findall(rb'"mission9-run" content="(\w+)"', bucket.get(key))[0].decode() for key in there}

    place, here = f"{bucket}/results", str(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", here)
    run(RunConfig(input=str(images), output=place, **SETTINGS))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert erased_from(place) is not None
    before = pages()
    assert before == {f"results/runs/{run_id}/{PAGE}": run_id for run_id in before.values()}
    monkeypatch.setenv("XDG_CACHE_HOME", here)
    monkeypatch.setattr("mission9.html_report.write_report", fail)
    receipt = erased_from(place, with_source=True)
    assert receipt is not None
    assert receipt.result["model"] == "unchanged: none of its images is erased"
    assert pages() == before
    mirror = Path(mirror_of(Address.of(place), "output"))
    assert not [path for path in mirror.iterdir() if path.name not in ("run.json", "_state")]
    with open_bucket_output(Address.of(place), overwrite=False) as output:
        (output.root / PAGE).write_text('<meta name="mission9-run" content="0123">')
        output.publish_page()
    assert pages() == before


def test_a_prefix_that_holds_no_output_is_told(bucket: Bucket, tmp_path: Path, capsys: Any) -> None:
    bucket.put("other/file.txt", b"of somebody")
    for place in (f"{bucket}/typo", f"{bucket}/other"):
        for command in (
            ["verify", place],
            ["erase", place, "--older-than", "1"],
            ["erase", place, "--ids", str(ids_file(tmp_path))],
        ):
            assert main(command) == 2
            assert f"there is no mission9 output in {place}" in capsys.readouterr().err
    assert bucket.keys == ["other/file.txt"]


def ids_file(folder: Path) -> Path:
    file = folder / "ids.txt"
    file.write_text("\n".join(ERASED))
    return file
