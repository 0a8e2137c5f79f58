"""What lies in an output and is damaged, or is something else than it was: computed again or refused, never used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.disk.files import patiently
from mission9.errors import Mission9Error
from mission9.output.folder import Output
from mission9.output.open_output import open_output
from mission9.stages.verify_output import verify_output
from tests.conftest import InProcessRunner
from tests.hostile import is_whole, tables

GARBAGE = {
    "empty": b"",
    "nothing": b"null",
    "number": b"7",
    "list": b"[1, 2]",
    "names": b'["features", "../../elsewhere"]',
    "object": b'{"fingerprint": 7, "splits": 3, "key": [], "features": {"rows": "many"}}',
    "deep": b"[" * 100_000,
    "binary": bytes(range(256)) * 8,
    "zeros": bytes(5000),
}


@pytest.fixture
def config(tree: Path, tmp_path: Path) -> RunConfig:
    (tree / "Training" / "a" / "bad.jpg").write_bytes(b"bad")
    settings = {"input": str(tree), "output": str(tmp_path / "out"), "weights": "demo", "components": 3}
    config = RunConfig(**settings, max_reject_rate=0.5)
    run(config, InProcessRunner())
    return config


def told(config: RunConfig) -> list[str]:
    """What `verify` says; any other error than one of ours is a defect."""
    try:
        return list(verify_output(config.output))
    except Mission9Error as error:
        return [str(error)]


def files_of(state: Path) -> dict[str, Path]:
    shards = next((state / "shards").iterdir())
    return {
        "run.json": state.parent / "run.json",
        "tables.json": state / "tables.json",
        "checksums.json": state / "checksums.json",
        "lock": state / "lock",
        "marker": next(shards.glob("*.json")),
        "images.parquet": shards / "images.parquet",
        "done.parquet": shards / "done.parquet",
        "todo.parquet": shards / "todo.parquet",
        "features": next(shards.glob("*.features.parquet")),
        "rejects": next(shards.glob("*.rejects.parquet")),
        "pca.json": state.parent / "pca_model" / "pca.json",
    }


KINDS = ["run.json", "tables.json", "checksums.json", "lock", "marker", "images.parquet", "done.parquet"]
KINDS += ["todo.parquet", "features", "rejects", "pca.json"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_garbage_in_the_place_of_any_file(
    kind: str, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(config.output)
    wanted = tables(output)
    shutil.copytree(output, tmp_path / "as it was")
    for name, data in GARBAGE.items():
        place = files_of(output / "_state")[kind]
        place.unlink()  # images and done are one file under two names
        place.write_bytes(data)
        problems = told(config)
        assert all("\n" not in problem for problem in problems), name
        if kind not in ("lock", "todo.parquet", "images.parquet", "tables.json"):
            assert problems, name
        capsys.readouterr()
        assert main(["verify", config.output]) in (0, 1, 2), name
        run(config, InProcessRunner())
        assert told(config) == [], name
        assert tables(output) == wanted, name
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "as it was", output)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["features", "rejects"])
@pytest.mark.parametrize("what", ["rows", "bytes", "sha256"])
@pytest.mark.parametrize("value", [-1, 0, 10**12, "x"])
def test_a_marker_of_the_right_form_with_other_numbers_is_none(
    table: str, what: str, value: object, config: RunConfig
) -> None:
    output = Path(config.output)
    wanted = tables(output)
    markers = list((output / "_state").glob("shards/*/*.json"))
    for marker in markers:
        facts = json.loads(marker.read_bytes())
        facts[table][what] = value
        marker.write_text(json.dumps(facts))
    assert told(config)
    assert run(config, InProcessRunner()).images_inferred > 0
    assert told(config) == []
    assert tables(output) == wanted


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_the_plans_changes_no_result(config: RunConfig) -> None:
    output = Path(config.output)
    wanted = tables(output)
    place = files_of(output / "_state")["done.parquet"].parent
    whole = {name: (place / name).read_bytes() for name in ("images.parquet", "done.parquet")}
    length = len(whole["done.parquet"])
    for at in range(0, length, length // 25):
        for name, data in whole.items():
            (place / name).unlink()
            (place / name).write_bytes(data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :])
        told(config)
        run(config, InProcessRunner())
        assert tables(output) == wanted, at
        whole = {name: (place / name).read_bytes() for name in whole}


def test_names_that_lead_elsewhere_are_not_followed(config: RunConfig, tmp_path: Path) -> None:
    theirs = tmp_path / "precious"
    theirs.mkdir()
    (Path(config.output) / "_state" / "tables.json").write_text('["../precious", "features"]')
    assert "../precious" not in Output(Path(config.output)).published()
    run(config, InProcessRunner())
    assert theirs.is_dir()
    assert is_whole(Path(config.output))


@pytest.mark.parametrize("missing", ["tables.json", "checksums.json"])
def test_what_was_to_be_published_and_is_damaged_is_made_anew(missing: str, config: RunConfig) -> None:
    output = Path(config.output)
    wanted = tables(output)
    ready = output / "_state" / "ready"
    shutil.copytree(output / "features", ready / "features")
    for name in ("tables.json", "checksums.json"):
        (ready / name).write_bytes(b"{" if name == missing else b"[]")
    if missing == "checksums.json":
        (ready / missing).unlink()
    assert "killed while it published" in told(config)[0]
    run(config, InProcessRunner())
    assert told(config) == []
    assert tables(output) == wanted


def test_rows_of_earlier_fidelity_that_are_none(config: RunConfig) -> None:
    low = RunConfig(**{**config.model_dump(), "precision": "bf16", "engine": "torch"})
    first = run(low, InProcessRunner())
    place = Path(config.output) / "run.json"
    damaged: object
    for damaged in (None, [], {}, {"cosine_mean": "x", "cosine_min": 1}):
        place.write_text(json.dumps(json.loads(place.read_bytes()) | {"fidelity": damaged}))
        assert run(low, InProcessRunner()).fidelity == first.fidelity


def test_a_run_that_says_who_it_is_in_no_text(config: RunConfig) -> None:
    with open_output(config.output, overwrite=False) as output:
        (output.state / "lock").write_bytes(b"\xff\xfe\x00")
        assert patiently(lambda: main(["run", "--input", config.input, "--output", config.output])) == 2
