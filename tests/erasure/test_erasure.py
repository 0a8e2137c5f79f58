"""Erased images are gone from every file, the model is that of the others, and no run brings them back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.erasure.erase import erase
from mission9.erasure.receipt import Receipt
from mission9.erasure.search import Search
from mission9.erasure.selection import ErasureRequest
from mission9.errors import ConfigError, ErasureError, InputError, OutputError, StorageError
from mission9.output.local import Output
from mission9.output.open import output_at
from mission9.output.run_report import Report
from mission9.output.tombstones import Tombstones
from mission9.pack.make_pack import make_pack
from mission9.pca import PCAModel
from mission9.pipeline.run import run
from mission9.results.reader import Results
from mission9.results.verify import verify_output
from mission9.stages import collect_shards
from tests.support.finished import copy_tree, write_tree
from tests.support.forks import Forks

ERASED = ["Test/a/1.jpg", "Training/a/0.jpg", "Training/b/3.jpg", "Training/b/cut & <odd> é.jpg"]
SETTINGS: dict[str, Any] = {"weights": "demo", "components": 3, "max_reject_rate": 0.5, "no_report": True}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """The tree with images that are rejected, in `place/images`, a run of it in `place/out`, and a copy of both."""
    folder = tmp_path_factory.mktemp("erasure")
    images = write_tree(folder / "place/images", pictures)
    (images / ERASED[-1]).write_bytes(pictures[0][:300])
    (images / "Training/b/empty.jpg").write_bytes(b"")
    run_into(folder / "place/out", images)
    copy_tree(folder / "place", folder / "as it was")
    return folder


@pytest.fixture
def place(kept: Path) -> Path:
    """The folder of images and output, restored for each test: the output names its images by this path."""
    shutil.rmtree(kept / "place")
    return copy_tree(kept / "as it was", kept / "place")


@pytest.fixture
def images(place: Path) -> Path:
    return place / "images"


@pytest.fixture
def output(place: Path) -> Path:
    return place / "out"


def run_into(output: Path, images: Path, **settings: Any) -> Report:
    return run(RunConfig(input=str(images), output=str(output), **SETTINGS | settings))


def erased_from(output: Path, *names: str, **settings: Any) -> Receipt | None:
    return erase(str(output), ErasureRequest("erase", names, Path("ids.txt"), **settings))


def names_in(folder: Path, names: list[str]) -> set[str]:
    """The names found in any file, in its bytes or as its readers see it."""
    found = set()
    for file in (path for path in (folder, *folder.rglob("*")) if path.is_file()):
        content = file.read_bytes()
        texts = repr(pq.read_table(file).to_pylist()) if file.suffix == ".parquet" else ""
        found |= {name for name in names if name.encode() in content or name in texts or repr(name)[1:-1] in texts}
    return found


def state_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


class Others:
    """Results that runs make of the images that are left, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[frozenset[Path], Path] = {}

    def of(self, images: Path, without: list[str]) -> Path:
        left = frozenset(path.relative_to(images) for path in images.rglob("*.jpg")) - set(map(Path, without))
        if left not in self._made:
            others = self._folder / str(len(self._made))
            for path in left:
                (others / "images" / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(images / path, others / "images" / path)
            run_into(others / "out", others / "images")
            self._made[left] = others / "out"
        return self._made[left]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Others:
    return Others(tmp_path_factory.mktemp("others"))


def assert_is_of_the_others(output: Path, images: Path, others: Others, names: list[str]) -> None:
    """The result is the one that a run makes of the images without the erased ones: the model to 1e-6."""
    fresh_output = others.of(images, names)
    found, wanted = Results.of(output), Results.of(fresh_output)
    assert found.report.splits == wanted.report.splits
    assert found.report.n_components == wanted.report.n_components
    left, fresh = PCAModel.load(output / "pca_model"), PCAModel.load(fresh_output / "pca_model")
    assert left.n_samples_ == fresh.n_samples_
    for name in ("mean_", "components_", "explained_variance_"):
        there, here = getattr(left, name), getattr(fresh, name)
        assert np.linalg.norm(there - here) <= 1e-6 * np.linalg.norm(here), name
    assert np.linalg.norm(left.moments.scatter - fresh.moments.scatter) <= 1e-6 * np.linalg.norm(fresh.moments.scatter)
    for split in wanted.splits:
        there_scores, here_scores = found.scores(split), wanted.scores(split)
        assert there_scores.paths.tolist() == here_scores.paths.tolist()
        assert there_scores.labels.tolist() == here_scores.labels.tolist()
        np.testing.assert_allclose(there_scores.pca, here_scores.pca, rtol=1e-4, atol=1e-4)
    assert found.rejects()["path"].to_pylist() == wanted.rejects()["path"].to_pylist()
    assert not list(verify_output(str(output)))


def test_what_is_erased_is_nowhere_and_the_rest_is_as_if_it_had_never_been(
    output: Path, images: Path, others: Others
) -> None:
    run_into(output, images, no_report=False)
    assert names_in(output / "report.html", ERASED)
    assert names_in(output, ERASED) == set(ERASED)
    before = json.loads((output / "run.json").read_bytes())
    receipt = erased_from(output, *ERASED)
    assert receipt is not None
    assert (receipt.erased, receipt.rows_of_shards) == (4, 4)
    assert receipt.result["model"] == "moments of the erased images subtracted, refitted"
    assert names_in(output, ERASED) == set()
    after = json.loads((output / "run.json").read_bytes())
    assert after["run_id"] != before["run_id"]
    assert after["skipped"] == {"(erased)": 4}
    assert (output / "report.html").exists()
    assert all((images / name).exists() for name in ERASED)
    assert_is_of_the_others(output, images, others, ERASED)


def test_the_receipt_tells_no_name(output: Path) -> None:
    receipt = erased_from(output, *ERASED)
    assert receipt is not None
    content = (output / receipt.file).read_text()
    told = json.loads(content)
    assert len(told["images"]) == len(set(told["images"])) == 4
    plain = {hashlib.sha256(name.encode()).hexdigest() for name in ERASED}
    assert not plain.intersection(told["images"])  # which anybody could have guessed
    assert told["digest_before"] != told["digest_after"]
    assert "MLflow" in "; ".join(told["not_reached"])  # it may have been sent there by another command
    assert not [name for name in ERASED if name in content or Path(name).name in content]


def test_the_next_run_leaves_them_out_and_computes_nothing(output: Path, images: Path, others: Others) -> None:
    erased_from(output, *ERASED)
    report = run_into(output, images)
    assert report.images_inferred == 0
    assert report.skipped == {"(erased)": 4}
    assert report.found == 17
    assert names_in(output, ERASED) == set()
    assert_is_of_the_others(output, images, others, ERASED)
    assert run_into(output, images, overwrite=True).skipped == {"(erased)": 4}
    assert names_in(output, ERASED) == set()


def test_a_second_call_does_nothing_and_says_so(output: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(ERASED) + "\r\n\n")
    command = ["erase", str(output), "--ids", str(tmp_path / "ids.txt")]
    assert main(command) == 0
    words = capsys.readouterr()
    assert "4 images erased" in words.out
    assert not [name for name in ERASED if name in words.out + words.err]
    before = state_of(output)
    assert main(command) == 0
    assert capsys.readouterr().out == f"nothing to do: {output} holds nothing of them\n"
    assert state_of(output) == before


def test_shards_of_other_settings_lose_them_too(output: Path, images: Path) -> None:
    run_into(output, images, preprocess="crop")
    assert len(list((output / "_state/shards").iterdir())) == 2
    receipt = erased_from(output, *ERASED)
    assert receipt is not None
    assert receipt.rows_of_shards == 8
    assert names_in(output, ERASED) == set()
    assert run_into(output, images).images_inferred == 0
    assert run_into(output, images, preprocess="crop").images_inferred == 0


def test_the_images_are_deleted_if_asked(output: Path, images: Path) -> None:
    left = len(list(images.rglob("*.jpg"))) - len(ERASED)
    erased_from(output, *ERASED[:2])
    receipt = erased_from(output, *ERASED, with_source=True)
    assert receipt is not None
    assert (receipt.erased, receipt.source["files"]) == (2, 4)
    assert not [name for name in ERASED if (images / name).exists()]
    assert len(list(images.rglob("*.jpg"))) == left
    assert erased_from(output, *ERASED, with_source=True) is None
    assert run_into(output, images).skipped == {}


def test_images_are_deleted_only_where_it_is_certain_which(output: Path, images: Path, place: Path) -> None:
    report = json.loads((output / "run.json").read_bytes())
    report["config"]["input"] = "images"
    (output / "run.json").write_text(json.dumps(report))
    before = state_of(place)
    with pytest.raises(ConfigError, match="confirm the deletion with --input"):
        erased_from(output, *ERASED, with_source=True)
    assert state_of(place) == before
    erased_from(output, *ERASED, with_source=True, input=str(images))
    assert not [name for name in ERASED if (images / name).exists()]


def test_what_is_not_deleted_is_told(output: Path, images: Path, tmp_path: Path) -> None:
    make_pack(str(images), str(tmp_path / "packed"))
    for place, words in (
        (str(tmp_path / "packed"), "is a pack: delete the images from"),
        ("memory://x", "there"),
    ):
        with pytest.raises(ConfigError, match=words):
            erased_from(output, *ERASED, with_source=True, input=place)
    assert names_in(output, ERASED) == set(ERASED)
    (tmp_path / "elsewhere").mkdir()
    receipt = erased_from(output, *ERASED, with_source=True, input=str(tmp_path / "elsewhere"))
    assert receipt is not None
    assert f"{len(ERASED)} images not found in {tmp_path / 'elsewhere'}" in "; ".join(receipt.not_reached)


def test_an_id_that_names_nothing_stops_all_of_it(output: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "ids.txt").write_text("Training/a/0.jpg\nno/such.jpg\n")
    before = state_of(output)
    assert main(["erase", str(output), "--ids", str(tmp_path / "ids.txt")]) == 2
    words = capsys.readouterr().err
    assert "1 ids in" in words
    assert "(lines 2)" in words
    assert "such.jpg" not in words
    assert state_of(output) == before
    with pytest.raises(InputError):
        erased_from(output, "Training/a")  # no folder, only images
    (tmp_path / "none.txt").write_text("\n")
    assert main(["erase", str(output), "--ids", str(tmp_path / "none.txt")]) == 2
    assert main(["erase", str(tmp_path / "other"), "--ids", str(tmp_path / "ids.txt")]) == 2
    assert not (tmp_path / "other").exists()


def test_nothing_outside_of_the_images_is_ever_deleted(output: Path, images: Path, place: Path) -> None:
    (place / "precious.jpg").write_bytes(b"precious")
    (images / "out").symlink_to(place)
    before = state_of(output)
    for name in ("../precious.jpg", str(place / "precious.jpg"), "out/precious.jpg", "Training/a", "Training/a/"):
        with pytest.raises(InputError):
            erased_from(output, name, with_source=True)
    assert (place / "precious.jpg").read_bytes() == b"precious"
    assert state_of(output) == before
    beside = Path(f"{images}-private")  # whose name goes on where that of the images ends
    beside.mkdir()
    (beside / "precious.jpg").write_bytes(b"precious")
    (images / "beside").symlink_to(beside)
    with pytest.raises(InputError):
        erased_from(output, "beside/precious.jpg", with_source=True)
    assert (beside / "precious.jpg").read_bytes() == b"precious"
    (images / "new.jpg").write_bytes(b"not seen by a run yet")
    receipt = erased_from(output, "new.jpg", with_source=True)
    assert receipt is not None
    assert receipt.result["model"] == "unchanged: none of its images is erased"
    assert not (images / "new.jpg").exists()


def test_it_refuses_beside_a_run_and_a_run_beside_it(output: Path) -> None:
    with output_at(str(output)).open(overwrite=False), pytest.raises(OutputError, match="another run is writing"):
        erased_from(output, *ERASED)
    assert erased_from(output, *ERASED) is not None


def test_so_few_are_left_that_there_is_no_result(output: Path, images: Path) -> None:
    training = [str(path.relative_to(images)) for path in images.rglob("*.jpg") if "Training" in path.parts]
    receipt = erased_from(output, *training[1:])
    assert receipt is not None
    assert receipt.result == {"images": 0, "model": "none: the result is removed"}
    assert {path.name for path in output.iterdir()} == {"_state"}
    assert names_in(output, training[1:]) == set()
    with pytest.raises(ConfigError, match="at least 2 images"):
        run_into(output, images)


def test_fewer_are_left_than_components_were_asked_for(output: Path, images: Path) -> None:
    training = sorted(str(path.relative_to(images)) for path in images.rglob("Training/*/?.jpg"))
    erased_from(output, *training[2:])
    assert json.loads((output / "run.json").read_bytes())["n_components"] == 2
    assert not list(verify_output(str(output)))


def run_with_model(output: Path, images: Path, model: Path) -> Report:
    settings = {name: value for name, value in SETTINGS.items() if name != "components"}
    return run(RunConfig(input=str(images), output=str(output), pca_model=str(model), **settings))


def features_of(output: Path, split: str = "Training") -> dict[str, np.ndarray]:
    rows = pq.read_table(output / "features").to_pylist()
    return {row["path"]: np.array(row["features"], np.float64) for row in rows if row["split"] == split}


def is_recovered(wanted: np.ndarray, rows: np.ndarray, model: PCAModel) -> bool:
    """Return True if a row can be computed from a model and the other rows, by guessing the number of fitted rows."""
    guesses = (model.mean_ * (len(rows) + more) - rows.sum(0) for more in range(1, 5))
    return any(np.linalg.norm(guess - wanted) <= 1e-3 * np.linalg.norm(wanted) for guess in guesses)


def test_an_erased_image_is_recovered_from_no_given_model(output: Path, images: Path, tmp_path: Path) -> None:
    erased, later = "Training/a/0.jpg", tmp_path / "later"
    run_with_model(later, images, output / "pca_model")
    before = features_of(later)
    wanted = before.pop(erased)
    left = np.stack(list(before.values()))
    given = PCAModel.load(later / "pca_model")
    assert is_recovered(wanted, left, given)
    assert (given.n_samples_, given.moments.scatter.size) == (0, 0)  # which would tell it without the other rows
    receipt = erased_from(later, erased)
    assert receipt is not None
    assert receipt.result["model"].endswith("is replaced by one fitted on the rest of Training")
    assert any("results that others made with a PCA model from here" in told for told in receipt.not_reached)
    model = PCAModel.load(later / "pca_model")
    assert not is_recovered(wanted, left, model)
    assert (model.n_samples_, model.n_components_) == (len(left), 3)
    np.testing.assert_allclose(model.mean_, left.mean(0), rtol=1e-9)
    assert json.loads((later / "run.json").read_bytes())["fitted_on"] == "Training"
    assert names_in(later, [erased]) == set()
    assert not list(verify_output(str(later)))

    with pytest.raises(ConfigError, match=r"may have seen images erased from .*later: erase them from"):
        run_with_model(later, images, output / "pca_model")
    erased_from(output, erased)
    run_with_model(later, images, output / "pca_model")
    assert not is_recovered(wanted, left, PCAModel.load(later / "pca_model"))
    assert not list(verify_output(str(later)))


def test_no_model_that_stood_before_an_erasure_is_given_after_it(output: Path, images: Path, tmp_path: Path) -> None:
    run_into(output, images, components=2)
    shutil.copytree(output / "pca_model", tmp_path / "earlier")
    run_into(output, images)
    shutil.copytree(output / "pca_model", tmp_path / "standing")
    run_with_model(output, images, output / "pca_model")
    shutil.copytree(output / "pca_model", tmp_path / "without moments")
    erased_from(output, ERASED[1])
    for name in ("earlier", "standing", "without moments"):
        with pytest.raises(ConfigError, match="may have seen images erased"):
            run_with_model(output, images, tmp_path / name)
    shutil.copytree(output / "pca_model", tmp_path / "refitted")
    run_with_model(output, images, tmp_path / "refitted")
    assert not list(verify_output(str(output)))


def test_a_model_that_saw_no_erased_image_may_be_given_again(output: Path, images: Path) -> None:
    erased_from(output, "Test/a/1.jpg", ERASED[-1])  # of which the model was not fitted on either
    run_with_model(output, images, output / "pca_model")
    receipt = erased_from(output, "Test/a/0.jpg")  # nobody can tell any more
    assert receipt is not None
    assert "is replaced by one fitted on" in receipt.result["model"]


def test_of_a_given_model_nobody_tells_what_it_saw(output: Path, images: Path) -> None:
    run_with_model(output, images, output / "pca_model")
    (images / "never listed.jpg").write_bytes(b"here")
    receipt = erased_from(output, "never listed.jpg", with_source=True)
    assert receipt is not None
    assert "is replaced by one fitted on" in receipt.result["model"]
    receipt = erased_from(output, ERASED[1])
    assert receipt is not None
    assert receipt.result["model"] == "moments of the erased images subtracted, refitted"
    assert json.loads((output / "run.json").read_bytes())["n_components"] == 3


def test_a_given_model_is_retired_by_an_erasure_that_was_killed(
    output: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(output / "pca_model", tmp_path / "model")
    run_with_model(output, images, model)
    request = ErasureRequest("erase", ERASED)
    killed(output, request, monkeypatch)
    with pytest.raises(ConfigError, match="may have seen"):
        run_with_model(output, images, model)
    killed(output, request, monkeypatch, before="clear_scratch")  # the new result stands by then
    replaced = PCAModel.load(output / "pca_model")
    assert replaced.n_samples_ == len(features_of(output))
    receipt = erased_from(output, *ERASED)
    assert receipt is not None
    assert names_in(output, ERASED) == set()
    assert PCAModel.load(output / "pca_model").sha256 == replaced.sha256
    run_with_model(output, images, output / "pca_model")
    assert not list(verify_output(str(output)))


def test_where_nothing_is_left_to_fit_on_the_result_of_a_given_model_is_taken_away(
    output: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = shutil.copytree(output / "pca_model", tmp_path / "model")
    shutil.rmtree(images / "Training")
    run_with_model(output, images, model)
    receipt = erased_from(output, "Test/a/1.jpg")
    assert receipt is not None
    assert receipt.result == {"images": 0, "model": "none: the result is removed"}
    assert "run again with --pca-model of a result from which the images were erased too" in caplog.text
    assert {path.name for path in output.iterdir()} == {"_state"}
    with pytest.raises(ConfigError, match="may have seen"):
        run_with_model(output, images, model)


def test_a_full_disk_takes_nothing_away(output: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output))

    before = Results.of(output).report.run_id
    with monkeypatch.context() as patch:
        patch.setattr(collect_shards, "link_or_copy", full)
        with pytest.raises(StorageError, match="not enough space"):
            erased_from(output, *ERASED)
    assert Results.of(output).report.run_id == before
    receipt = erased_from(output, *ERASED)
    assert receipt is not None
    assert receipt.result["model"] == "moments of the erased images subtracted, refitted"
    assert names_in(output, ERASED) == set()


@pytest.mark.parametrize("missing", ["pca_model", "features", "rejects"])
def test_what_somebody_deleted_is_in_nobodys_way(output: Path, images: Path, missing: str) -> None:
    shutil.rmtree(output / missing)
    assert erased_from(output, *ERASED[:3]) is not None
    assert names_in(output, ERASED[:3]) == set()
    run_into(output, images)
    assert not list(verify_output(str(output)))


def test_without_a_sound_model_it_is_fitted_anew(output: Path, images: Path, others: Others) -> None:
    (output / "pca_model/pca.json").write_text("{")
    receipt = erased_from(output, *ERASED)
    assert receipt is not None
    assert receipt.result["model"] == "refitted"
    assert names_in(output, ERASED) == set()
    assert_is_of_the_others(output, images, others, ERASED)


def test_a_damaged_result_is_taken_away_and_the_next_run_makes_it_anew(
    output: Path, images: Path, others: Others
) -> None:
    for file in (output / "_state/shards").rglob("*.features.parquet"):
        file.write_bytes(file.read_bytes()[:-8] + b"damaged!")
    receipt = erased_from(output, *ERASED)
    assert receipt is not None
    assert receipt.result["model"] == "none: the result is removed"
    assert names_in(output, ERASED) == set()
    assert run_into(output, images).images_inferred > 0
    assert_is_of_the_others(output, images, others, ERASED)


def test_what_is_left_anywhere_is_told_and_the_same_command_goes_on(output: Path) -> None:
    (output / "notes.txt").write_text(f"see {ERASED[0]}")
    with pytest.raises(ErasureError, match=r"left in .*notes\.txt"):
        erased_from(output, *ERASED)
    assert not (output / "_state/receipts").exists()
    (output / "notes.txt").unlink()
    assert erased_from(output, *ERASED) is not None
    assert erased_from(output, *ERASED) is None


@pytest.mark.parametrize("names", [["done.parquet"], ["done.parquet", "images.parquet"]])
@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(file.read_bytes()[:100]), Path.unlink])
def test_plans_that_cannot_be_read_are_no_empty_ones(
    output: Path, images: Path, names: list[str], spoil: Callable[[Path], object], capsys: Any
) -> None:
    make_old(images, ERASED)
    run_into(output, images)
    (shards,) = (output / "_state/shards").iterdir()
    for name in names:
        spoil(shards / name)
    before = state_of(output)
    assert main(["erase", str(output), "--older-than", "30"]) == 2
    assert f"{shards} is missing or damaged" in capsys.readouterr().err
    with pytest.raises(OutputError, match="rerun mission9 run"):
        erased_from(output, ERASED[0])
    assert state_of(output) == before
    run_into(output, images)
    assert main(["erase", str(output), "--older-than", "30"]) == 0
    assert "4 images erased" in capsys.readouterr().out
    assert names_in(output, ERASED) == set()


def make_old(images: Path, names: list[str]) -> None:
    """Have images that changed last forty days ago."""
    old = time.time() - 40 * 86_400
    for name in names:
        os.utime(images / name, (old, old))


def test_retain_erases_what_is_old(output: Path, images: Path, others: Others, capsys: Any) -> None:
    assert main(["erase", str(output), "--older-than", "30"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    make_old(images, ERASED)
    run_into(output, images)
    assert main(["erase", str(output), "--older-than", "30", "--source"]) == 0
    assert "4 images erased" in capsys.readouterr().out
    assert names_in(output, ERASED) == set()
    assert not [name for name in ERASED if (images / name).exists()]
    assert_is_of_the_others(output, images, others, [])
    assert main(["erase", str(output), "--older-than", "30", "--source"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_retain_finds_the_images_that_a_run_left_out(output: Path, images: Path, capsys: Any) -> None:
    make_old(images, ERASED)
    run_into(output, images)
    assert main(["erase", str(output), "--older-than", "30"]) == 0
    run_into(output, images)  # which lists none of them
    (images / "never seen.jpg").write_bytes(b"by any run")
    make_old(images, ["never seen.jpg"])
    os.utime(images / ERASED[0])  # it changed since
    assert main(["erase", str(output), "--older-than", "30", "--source"]) == 0
    assert "source: 3 files" in capsys.readouterr().out
    assert [name for name in ERASED if (images / name).exists()] == ERASED[:1]
    assert (images / "never seen.jpg").exists()
    assert main(["erase", str(output), "--older-than", "30", "--source"]) == 0
    assert capsys.readouterr().out == f"nothing to do: {output} holds nothing of them, nor does the input\n"


def test_what_is_elsewhere_too_is_told(output: Path, images: Path, tmp_path: Path, capsys: Any) -> None:
    os.link(images / "Test/a/1.jpg", tmp_path / "other name.jpg")
    behind = images / "Training/a/0.jpg"
    behind.rename(tmp_path / "behind.jpg")
    behind.symlink_to(tmp_path / "behind.jpg")
    run_into(output, images, follow_links=True)
    (tmp_path / "ids.txt").write_text("Test/a/1.jpg\nTraining/a/0.jpg\nTraining/b/3.jpg\n")
    capsys.readouterr()
    assert main(["erase", str(output), "--ids", str(tmp_path / "ids.txt"), "--source"]) == 0
    told = capsys.readouterr().out
    assert "source: 3 files\n" in told
    assert "2 of these files are elsewhere too, as hard links or behind a link: delete them there\n" in told
    assert (tmp_path / "behind.jpg").exists()
    assert not behind.is_symlink()


def test_retain_deletes_no_file_that_changed_since(output: Path, images: Path) -> None:
    make_old(images, ERASED)
    run_into(output, images)
    os.utime(images / ERASED[0])
    receipt = erase(str(output), ErasureRequest("retain", days=30, with_source=True))
    assert receipt is not None
    assert (receipt.erased, receipt.source["files"]) == (3, 3)
    assert names_in(output, ERASED) == set(ERASED[:1])


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "1e300", "36501"])
def test_retain_takes_no_time_that_cannot_be_meant(tmp_path: Path, days: str, capsys: Any) -> None:
    (tmp_path / "_state").mkdir()
    assert main(["erase", str(tmp_path), "--older-than", days]) == 2
    assert "Traceback" not in capsys.readouterr().err


def killed(output: Path, request: ErasureRequest, monkeypatch: pytest.MonkeyPatch, *, before: str = "remake") -> None:
    """An erasure that ends where shards and plans are written without the images, and the result is not."""

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"mission9.erasure.erase.{before}", kill)
        with pytest.raises(KeyboardInterrupt):
            erase(str(output), request)


def test_what_was_killed_is_in_the_receipt_of_what_goes_on(
    output: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    make_old(images, ERASED)
    run_into(output, images)
    command = ["erase", str(output), "--older-than", "30"]
    killed(output, ErasureRequest("retain", days=30), monkeypatch)
    assert main(command) == 0
    words = capsys.readouterr().out
    assert "4 images erased, 4 rows of shards" in words
    assert "4 images of an erasure that was cut short were known by their hashes alone" in words
    (receipt,) = (output / "_state/receipts").iterdir()
    told = json.loads(receipt.read_bytes())
    assert (len(set(told["images"])), told["erased"], told["searched_by_hash_alone"]) == (4, 4, 4)
    assert json.loads((output / "_state/audit.jsonl").read_text().splitlines()[-1])["images"] == 4
    assert names_in(output, ERASED) == set()
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_another_erasure_goes_on_with_one_that_was_killed(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(output, ErasureRequest("erase", ERASED[:2]), monkeypatch)
    receipt = erased_from(output, ERASED[2])
    assert receipt is not None
    hash_of = Tombstones.of(Output(output).state_files).hash_of
    assert receipt.images == sorted(map(hash_of, ERASED[:3]))
    assert (receipt.erased, receipt.rows_of_shards, receipt.searched_by_hash_alone) == (3, 3, 2)
    assert names_in(output, ERASED[:3]) == set()
    receipt = erased_from(output, ERASED[3])
    assert receipt is not None
    assert (len(receipt.images), receipt.erased) == (1, 1)


def test_a_receipt_is_silent_of_no_image_that_may_lie_in_the_input(
    output: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(output, ErasureRequest("erase", ERASED[:2]), monkeypatch)
    receipt = erased_from(output, ERASED[2], with_source=True)
    assert receipt is not None
    assert receipt.source["files"] == 1
    assert (images / ERASED[0]).exists()
    assert "2 images of an interrupted erasure, unless it was to delete them" in receipt.not_reached


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_what_has_a_hash_alone_is_found_where_paths_are(
    output: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    killed(output, ErasureRequest("erase", ERASED), monkeypatch)
    file, table = output / f"left.{kind}", pa.table({"n": [1, 2], "path": ["a\nb", ERASED[3]]})
    pq.write_table(pa.table({"path": [1, 2]}), output / "others.parquet")
    (output / "others.csv").write_text("n\n1\n")
    if kind == "csv":
        pa.csv.write_csv(table.set_column(1, "path", [["a\nb", f"'{ERASED[3]}"]]), file)
    else:
        pq.write_table(table, file)
    with pytest.raises(ErasureError, match=f"left.{kind}"):
        erased_from(output, "Test/a/0.jpg")
    file.unlink()
    receipt = erased_from(output, "Test/a/0.jpg")
    assert receipt is not None
    assert len(receipt.images) == 5


KILLED = """
import os, pathlib, signal, sys
left = int(sys.argv[1])
def counted(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
os.fsync, os.link = counted(os.fsync), counted(os.link)
for name in ("rename", "replace", "unlink"):
    setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
from mission9.cli import main
sys.exit(main(["erase", *sys.argv[2:]]))
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(engine=False) as started:
        yield started


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_goes_on(
    forks: Forks, output: Path, images: Path, kept: Path, others: Others, tmp_path: Path
) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(ERASED))
    options = [str(output), "--ids", str(tmp_path / "ids.txt")]
    kills = 0
    for moment in range(0, 200, 6):
        shutil.rmtree(output)
        copy_tree(kept / "as it was/out", output)
        done = forks.run(str(moment), *options, code=KILLED)
        if done.returncode == 0:
            break
        assert done.returncode == -9
        kills += 1
        if kills % 3 == 2:  # a run between leaves them out as well
            assert run_into(output, images).skipped["(erased)"] == 4 or moment == 0
        assert main(["erase", *options]) == 0
        assert names_in(output, ERASED) == set()
        assert not list(verify_output(str(output)))
        receipts = [path.name for path in (output / "_state/receipts").iterdir()]
        assert 1 <= len(receipts) <= 2  # one that was written a moment before the end, and not noted as the last
        assert not [name for name in receipts if name.startswith(".")]
    assert kills > 8
    assert_is_of_the_others(output, images, others, ERASED)


def test_a_run_tells_of_an_erasure_that_was_cut_short(
    output: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (output / "notes.txt").write_text(ERASED[0])
    with pytest.raises(ErasureError):
        erased_from(output, *ERASED)
    run_into(output, images)
    assert "an erasure from" in caplog.text


def test_damaged_tombstones_bring_nothing_back(output: Path, images: Path) -> None:
    erased_from(output, *ERASED)
    (output / "_state/erased.json").write_text("{}")
    with pytest.raises(OutputError, match="erased images would return"):
        run_into(output, images)


def search(names: list[str], kept: list[str]) -> Search:
    return Search(names, lambda name: [other for other in kept if name in other])


@pytest.mark.parametrize("name", ["a/1.jpg", "x/é & <1>.jpg", "ab", 'a "quoted" name.png'])
def test_the_search_finds_a_name_in_every_form(tmp_path: Path, name: str) -> None:
    from html import escape
    from urllib.parse import quote

    file, looked_for = tmp_path / "file", search(["z/other.png", name], [])
    in_csv = name.replace('"', '""')
    for form in (name, escape(name), quote(name), json.dumps(name), json.dumps(name, ensure_ascii=False), in_csv):
        for before in (b"", b"x" * 13, os.urandom(1 << 12), b"\n" * ((1 << 24) - 3)):
            file.write_bytes(before + b'"' + form.encode() + b"\n")
            assert looked_for.is_in(file), form
    file.write_bytes(b"a/2.jpg\nAb\n" + b" " * 4096)
    assert not looked_for.is_in(file)
    file.write_bytes(b"")
    assert not looked_for.is_in(file)
    if len(name) < 8:  # which come about by chance
        file.write_bytes(b"x" + name.encode() + b' "' + name.encode() + b"c")
        assert not looked_for.is_in(file)
        pq.write_table(pa.table({"path": [name]}), tmp_path / "a.parquet")
        assert looked_for.is_in(tmp_path / "a.parquet")


def test_a_piece_of_a_kept_name_is_no_find(tmp_path: Path) -> None:
    file, looked_for = tmp_path / "file.csv", search(["Training/a/1.jpg"], ["old/Training/a/1.jpg.png"])
    file.write_text("old/Training/a/1.jpg.png,1\n")
    assert not looked_for.is_in(file)
    file.write_text("old/Training/a/1.jpg.png,1\nTraining/a/1.jpg,2\n")
    assert looked_for.is_in(file)


def test_names_that_lie_in_others_are_erased_alone(tmp_path: Path, tree: Path, pictures: list[bytes]) -> None:
    (tree / "Training/a/Training/a").mkdir(parents=True)
    (tree / "Training/a/Training/a/0.jpg").write_bytes(pictures[9])
    run_into(tmp_path / "out", tree)
    assert erased_from(tmp_path / "out", "Training/a/0.jpg") is not None
    paths = [path for split in ("Training", "Test") for path in Results.of(tmp_path / "out").scores(split).paths]
    assert len(paths) == 15
    assert "Training/a/Training/a/0.jpg" in paths


def test_what_changed_nobody_knows_when_is_not_old(
    output: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = ["Training/a/1.jpg", "Training/b/gone.jpg"]
    os.utime(images / unknown[0], ns=(0, 0))
    (images / unknown[1]).symlink_to("nothing")
    make_old(images, ERASED[:1])
    run_into(output, images)
    receipt = erase(str(output), ErasureRequest("retain", days=30, with_source=True))
    assert receipt is not None
    assert receipt.erased == 1
    assert any(left.startswith("2 images with an unknown modification time") for left in receipt.not_reached)
    assert (images / unknown[0]).exists()
    assert names_in(output, unknown) == set(unknown)
    assert main(["erase", str(output), "--older-than", "30", "--source"]) == 0
    assert "2 images are kept, since their age is unknown" in caplog.text
