"""Damaged or foreign files in an output are computed again or refused, never used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.errors import Mission9Error
from mission9.output.local import Output
from mission9.output.open import output_at
from mission9.output.shards import read_marker
from mission9.results.verify import verify_output
from mission9.schema import LISTING
from mission9.stages.measure_fidelity import fidelity_in
from mission9.stages.reuse import PreviousPlan
from mission9.storage.local.files import retry_io
from tests.conftest import InProcessRunner
from tests.support.finished import copy_of, copy_tree, with_changes, write_tree
from tests.support.hostile import is_whole, tables

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
# What is no table is so however it goes on; a file of the right kind may be another one.
NO_TABLE = {name: GARBAGE[name] for name in ("empty", "names", "binary", "zeros")}
# Nobody but who is refused reads what a lock says.
NO_HOLDER = {name: GARBAGE[name] for name in ("empty", "object", "deep", "binary")}


def other_table() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"path": ["Training/a/0.jpg", None], "sha256": [1, 2]}), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> RunConfig:
    folder = tmp_path_factory.mktemp("damaged")
    write_tree(folder / "images", pictures)
    (folder / "images/Training/a/bad.jpg").write_bytes(b"bad")
    settings = {"input": str(folder / "images"), "output": str(folder / "out"), "weights": "demo", "components": 3}
    config = RunConfig(**settings, max_reject_rate=0.5, no_report=True)
    run(config, InProcessRunner())
    return config


@pytest.fixture
def config(finished: RunConfig, tmp_path: Path) -> RunConfig:
    return copy_of(finished, tmp_path)


def told(config: RunConfig) -> list[str]:
    """The problems that `verify` reports; any other error than one of mission9's is a defect."""
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
    copy_tree(output, tmp_path / "as it was")
    is_table = kind.endswith(".parquet") or kind in ("features", "rejects")
    garbage = NO_TABLE | {"other table": other_table()} if is_table else NO_HOLDER if kind == "lock" else GARBAGE
    for name, data in garbage.items():
        place = files_of(output / "_state")[kind]
        place.unlink()  # images and done are one file under two names
        place.write_bytes(data)
        problems = told(config)
        assert all("\n" not in problem for problem in problems), name
        if kind not in ("lock", "todo.parquet", "images.parquet", "tables.json"):
            assert problems, name
        if name in ("empty", "binary"):
            capsys.readouterr()
            assert main(["verify", config.output]) in ((1, 2) if problems else (0,)), name
        run(config, InProcessRunner())
        assert told(config) == [], name
        assert tables(output) == wanted, name
        shutil.rmtree(output)
        copy_tree(tmp_path / "as it was", output)


@pytest.mark.slow
def test_a_marker_of_the_right_form_with_other_numbers_is_none(config: RunConfig) -> None:
    output = Path(config.output)
    wanted = tables(output)
    cases = [
        (table, what, value)
        for table in ("features", "rejects")
        for what in ("rows", "bytes", "sha256")
        for value in (-1, 0, 10**12, "x")
    ]
    markers = {marker: marker.read_bytes() for marker in (output / "_state").glob("shards/*/*.json")}
    for case in cases:
        table, what, value = case
        for marker, content in markers.items():
            facts = json.loads(content)
            is_other = facts[table][what] != value
            facts[table][what] = value
            marker.write_text(json.dumps(facts))
            assert (read_marker(marker.parent, marker.stem) is None) == is_other, case
        assert told(config), case
    assert run(config, InProcessRunner()).images_inferred > 0
    assert told(config) == []
    assert tables(output) == wanted


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_the_plans_changes_no_result(config: RunConfig) -> None:
    output = Path(config.output)
    wanted = tables(output)
    place = files_of(output / "_state")["done.parquet"].parent
    whole = (place / "done.parquet").read_bytes()
    listing = pq.read_table(place / "done.parquet").select(LISTING.names).combine_chunks().to_batches()
    spoilt = place.parent.parent / "spoilt.parquet"

    def known() -> list[list[str | None]]:
        plan = PreviousPlan(spoilt, place)
        return [plan.shards_of(rows).to_pylist() for rows in listing]

    spoilt.write_bytes(whole)
    true = known()
    assert sum(key is not None for keys in true for key in keys) == 16
    for at in range(0, len(whole), len(whole) // 400):
        spoilt.write_bytes(whole[:at] + bytes([whole[at] ^ 0x04]) + whole[at + 1 :])
        for keys, right in zip(known(), true, strict=True):
            assert all(key in (None, other) for key, other in zip(keys, right, strict=True)), at
    spoilt.unlink()
    for quarter in range(5):
        for name in ("images.parquet", "done.parquet"):
            data = (place / name).read_bytes()
            at = min(
                len(data) * quarter // 4, len(data) - 1
            )  # of this file: the run before wrote one of another length
            (place / name).unlink()
            (place / name).write_bytes(data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :])
        told(config)
        run(config, InProcessRunner())
        assert tables(output) == wanted, quarter


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


@pytest.mark.slow
def test_rows_of_earlier_fidelity_that_are_none(config: RunConfig) -> None:
    low = with_changes(config, precision="bf16", engine="torch", components=2)
    for number in range(2, 6):
        for folder in ("Training/a", "Training/b"):
            (Path(config.input) / folder / f"{number}.jpg").unlink()
    first = run(low, InProcessRunner())
    place = Path(config.output) / "run.json"
    report = json.loads(place.read_bytes())
    assert fidelity_in(report) == first.fidelity
    damaged: object
    for damaged in (None, [], {}, {"cosine_mean": "x", "cosine_min": 1}):
        assert fidelity_in(report | {"fidelity": damaged}) is None, damaged
        place.write_text(json.dumps(report | {"fidelity": damaged}))
    assert run(low, InProcessRunner()).fidelity == first.fidelity


def test_a_run_that_says_who_it_is_in_no_text(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mission9.storage.local.lock._SAY_WHO", 0.1)
    with output_at(config.output).open(overwrite=False) as output:
        (output.state / "lock").write_bytes(b"\xff\xfe\x00")
        assert retry_io(lambda: main(["run", "--input", config.input, "--output", config.output])) == 2
