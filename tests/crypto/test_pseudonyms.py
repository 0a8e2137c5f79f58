"""With `--pseudonymise` no path is in anything that is published, and what is there can be held against the key."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.crypto.keys import read_key
from mission9.crypto.pseudonyms import Pseudonyms
from mission9.erasure.erase import erase
from mission9.erasure.selection import ErasureRequest
from mission9.errors import ConfigError, InputError
from mission9.output.layout import STATE
from mission9.pipeline.run import run
from mission9.results.evaluate import evaluate
from mission9.results.reader import Results
from mission9.results.verify import verify_output
from mission9.schema import vectors
from mission9.spark_pipeline import SparkImagePipeline
from tests.erasure.test_erasure import killed, names_in
from tests.support.finished import copy_tree, write_tree

KEY = "planted-secret-of-this-test"
SETTINGS: dict[str, Any] = {"weights": "demo", "components": 3, "max_reject_rate": 0.5, "no_report": True}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """In `place` the tree, a key and a run with that; and a copy of it."""
    folder = tmp_path_factory.mktemp("pseudonyms")
    images = write_tree(folder / "place/images", pictures)
    (images / "Training/b/cut é.jpg").write_bytes(pictures[0][:300])
    (folder / "place/key").write_text(KEY + "\n")
    run_into(folder / "place/out", images, pseudonymise=str(folder / "place/key"), no_report=False)
    copy_tree(folder / "place", folder / "as it was")
    return folder


@pytest.fixture
def place(kept: Path) -> Path:
    """For each test as it was: the output names images and key by this place."""
    shutil.rmtree(kept / "place")
    return copy_tree(kept / "as it was", kept / "place")


@pytest.fixture
def images(place: Path) -> Path:
    return place / "images"


@pytest.fixture
def key(place: Path) -> str:
    return str(place / "key")


@pytest.fixture
def output(place: Path) -> Path:
    return place / "out"


@pytest.fixture
def names(images: Path) -> list[str]:
    return sorted(str(path.relative_to(images)) for path in images.rglob("*.jpg"))


def run_into(output: Path, images: Path, **settings: Any) -> Any:
    return run(RunConfig(input=str(images), output=str(output), **SETTINGS | settings))


def published(output: Path, names: list[str]) -> set[str]:
    """The names found in the files for readers: everything except the state."""
    found = {name for name in names if name.encode() in (output / "run.json").read_bytes()}
    for place in output.iterdir():
        if place.name == "report.html":
            found |= {name for name in names if name.encode() in place.read_bytes()}
        elif place.is_dir() and place.name != STATE:
            found |= names_in(place, names)
    return found


def test_nothing_that_is_published_names_an_image(
    output: Path, images: Path, names: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert published(output, names) == set()
    run_into(tmp_path / "clear", images, no_report=False)
    assert published(tmp_path / "clear", names) == set(names)
    found, clear = Results.of(output), Results.of(tmp_path / "clear")
    pseudonyms = Pseudonyms(KEY.encode())
    for split in clear.splits:
        there, here = found.scores(split), clear.scores(split)
        order = np.argsort([pseudonyms.name(path) for path in here.paths])
        assert there.paths.tolist() == [pseudonyms.name(path) for path in here.paths[order]]
        assert there.labels.tolist() == here.labels[order].tolist()
        np.testing.assert_allclose(there.pca, here.pca[order], rtol=1e-4, atol=1e-4)
    assert found.rejects()["path"].to_pylist() == [pseudonyms.name("Training/b/cut é.jpg")]
    batches = found.images(["path", "features"])
    vectors_there = {row["path"]: row["features"] for batch in batches for row in batch.to_pylist()}
    for batch in clear.images(["path", "features"]):
        for path, features in zip(batch["path"].to_pylist(), vectors(batch["features"]), strict=True):
            np.testing.assert_array_equal(vectors_there[pseudonyms.name(path)], features)
    page = (output / "report.html").read_text()
    assert "images have pseudonyms here" in page
    assert "/9j/" not in page
    assert "/9j/" in (tmp_path / "clear/report.html").read_text()
    assert evaluate(found).overall.images == 3  # ties between equal pictures are told by their order


def test_the_order_of_rows_tells_nothing_of_the_order_of_paths(output: Path) -> None:
    for batch in Results.of(output).images(["path"]):
        assert batch["path"].to_pylist() == sorted(batch["path"].to_pylist())
    csv = (output / "training_pca_csv/part-00000.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in csv] == sorted(line.split(",")[0] for line in csv)


def test_the_key_is_nowhere(output: Path, key: str) -> None:
    digits, letters = KEY.encode().hex(), base64.b64encode(KEY.encode()).decode()
    assert names_in(output, [KEY, digits[:16], letters[:16]]) == set()  # nor a part of it, in another way of writing
    assert KEY not in Results.of(output).report.to_json().decode()


def test_verify_with_the_key_and_without(output: Path, key: str, tmp_path: Path) -> None:
    assert list(verify_output(str(output))) == []
    assert main(["verify", str(output), "--pseudonymise", key]) == 0
    (tmp_path / "other").write_text("another key of so many letters")
    assert main(["verify", str(output), "--pseudonymise", str(tmp_path / "other")]) == 2
    part = output / "features/part-00001.parquet"
    part.write_bytes((output / "features/part-00000.parquet").read_bytes())
    assert any(f"{part} is damaged" in problem for problem in verify_output(str(output)))


def test_the_next_run_goes_on_and_needs_a_key(output: Path, images: Path, key: str, names: list[str]) -> None:
    with pytest.raises(ConfigError, match="pass their key with --pseudonymise"):
        run_into(output, images)
    assert run_into(output, images, pseudonymise=key).images_inferred == 0
    before = set(Results.of(output).scores("Training").paths)
    (output.parent / "new").write_text("a key that takes the place of the old one")
    assert run_into(output, images, pseudonymise=str(output.parent / "new")).images_inferred == 0
    assert not before.intersection(Results.of(output).scores("Training").paths)
    assert published(output, names) == set()
    assert list(verify_output(str(output))) == []


@pytest.mark.parametrize("by_pseudonym", [True, False])
def test_images_are_erased_by_either_name(
    output: Path, images: Path, key: str, names: list[str], by_pseudonym: bool
) -> None:
    pseudonyms = Pseudonyms(KEY.encode())
    chosen = ["Training/a/1.jpg", "Training/b/cut é.jpg"]
    ids = [pseudonyms.name(name) for name in chosen] if by_pseudonym else chosen
    with pytest.raises(ConfigError, match="pass their key"):
        erase(str(output), ErasureRequest("erase", ids))
    receipt = erase(str(output), ErasureRequest("erase", ids, pseudonyms=pseudonyms))
    assert receipt is not None
    assert receipt.result["model"] == "moments of the erased images subtracted, refitted"
    assert names_in(output, [*chosen, *map(pseudonyms.name, chosen)]) == set()
    assert published(output, names) == set()
    assert list(verify_output(str(output), pseudonyms)) == []
    assert erase(str(output), ErasureRequest("erase", ids, pseudonyms=pseudonyms)) is None
    assert run_into(output, images, pseudonymise=key).skipped == {"(erased)": 2}


def test_keys_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSEUDONYM_KEY", KEY)
    assert read_key("env:PSEUDONYM_KEY", "--x") == KEY.encode()
    with pytest.raises(ConfigError, match="the environment variable NONE is not set"):
        read_key("env:NONE", "--x")
    with pytest.raises(ConfigError, match="cannot read the key in"):
        read_key(str(tmp_path / "none"), "--x")
    (tmp_path / "short").write_text("short\n")
    with pytest.raises(ConfigError, match="shorter than 16 bytes"):
        read_key(str(tmp_path / "short"), "--x")


def test_the_notebook_says_that_it_makes_none(key: str, spark: object, tmp_path: Path) -> None:
    pipeline = SparkImagePipeline(pseudonymise=key)
    with pytest.raises(ConfigError, match="whole runs only"):
        pipeline.save_pca_results(None, str(tmp_path))  # type: ignore[arg-type]


def test_images_are_deleted_by_pseudonyms_that_were_erased_before(
    output: Path, images: Path, key: str, names: list[str], tmp_path: Path
) -> None:
    pseudonyms = Pseudonyms.of(key)
    assert pseudonyms is not None
    ids = [pseudonyms.name(name) for name in names[:2]]
    assert erase(str(output), ErasureRequest("erase", ids, pseudonyms=pseudonyms)) is not None
    assert erase(str(output), ErasureRequest("erase", ids, pseudonyms=pseudonyms)) is None
    (tmp_path / "other").mkdir()
    before = (output / "_state/erased.json").read_bytes()
    with pytest.raises(InputError, match=r"2 ids in .* \(lines 1, 2\) are pseudonyms erased before and not in .*other"):
        erase(str(output), ErasureRequest("erase", ids, Path("ids.txt"), 0, True, str(tmp_path / "other"), pseudonyms))
    assert (output / "_state/erased.json").read_bytes() == before
    receipt = erase(str(output), ErasureRequest("erase", ids, Path("ids.txt"), with_source=True, pseudonyms=pseudonyms))
    assert receipt is not None
    assert (len(receipt.images), receipt.erased, receipt.source["files"]) == (2, 0, 2)
    assert not [name for name in names[:2] if (images / name).exists()]
    with pytest.raises(InputError, match="are pseudonyms erased before"):  # nobody can tell whether they were these
        erase(str(output), ErasureRequest("erase", ids, Path("ids.txt"), with_source=True, pseudonyms=pseudonyms))
    paths = ErasureRequest("erase", names[:2], with_source=True, pseudonyms=pseudonyms)
    assert erase(str(output), paths) is None


def test_a_killed_erasure_by_pseudonyms_goes_on(
    output: Path, images: Path, key: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pseudonyms = Pseudonyms.of(key)
    assert pseudonyms is not None
    request = ErasureRequest(
        "erase", [pseudonyms.name(name) for name in names[:2]], with_source=True, pseudonyms=pseudonyms
    )
    killed(output, request, monkeypatch)
    receipt = erase(str(output), request)
    assert receipt is not None
    assert (len(receipt.images), receipt.erased, receipt.source["files"]) == (2, 2, 2)
    assert names_in(output, names[:2]) == set()
