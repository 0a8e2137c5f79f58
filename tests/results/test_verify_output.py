"""`mission9 verify`: nothing wrong with a result as it was made; whatever is changed in it is noticed and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.errors import Mission9Error
from mission9.results.verify import verify_output
from tests.conftest import InProcessRunner
from tests.support.finished import copy_of, with_changes, write_tree

# Files of every kind that a result has.
KINDS = (
    "run.json",
    "features/part-00000.parquet",
    "rejects/part-00000.parquet",
    "training_pca/*/part-00000.parquet",
    "test_pca_csv/part-00000.csv",
    "pca_model/pca.safetensors",
    "pca_model/pca.json",
    "pca_model/weights.safetensors",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> RunConfig:
    """A finished run with all that a run makes, its page too."""
    folder = tmp_path_factory.mktemp("finished")
    tree = write_tree(folder / "images", pictures)
    label = tree / "Training" / "=1+1"
    label.mkdir()
    for n in range(3):
        (label / f"@{n}.jpg").write_bytes(pictures[n])
    (label / "bad.jpg").write_bytes(b"bad")
    settings = {"input": str(tree), "output": str(folder / "out"), "weights": "demo", "components": 3}
    config = RunConfig(**settings, max_reject_rate=0.5)
    run(config, InProcessRunner())
    return config


@pytest.fixture
def config(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """The finished run as a test's own, to damage."""
    return copy_of(finished, tmp_path)


def problems(config: RunConfig) -> list[str]:
    try:
        return list(verify_output(config.output))
    except Mission9Error as error:
        return [str(error)]


def test_a_result_as_it_was_made_has_no_problems(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert problems(config) == []
    assert main(["verify", config.output]) == 0
    assert capsys.readouterr().out == f"{config.output} is whole\n"


@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_is_named(kind: str, config: RunConfig) -> None:
    file = one_of(kind, config)
    whole = file.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 7)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert any(str(file) in problem for problem in problems(config)), at
    file.write_bytes(whole[:-1])
    assert any(str(file) in problem for problem in problems(config))
    assert main(["verify", config.output]) == 1
    file.unlink()
    assert problems(config) != []


@pytest.mark.parametrize("kinds", [KINDS, *(pytest.param((kind,), marks=pytest.mark.slow) for kind in KINDS)])
def test_any_damage_is_mended_by_the_same_run(kinds: tuple[str, ...], config: RunConfig) -> None:
    again = with_changes(config, no_report=True)  # for the damage here is to no page
    for harm in (shortened, Path.unlink):
        for kind in kinds:
            harm(one_of(kind, config))
        assert problems(config) != []
        run(again, InProcessRunner())
        assert problems(config) == []


def one_of(kind: str, config: RunConfig) -> Path:
    return sorted(Path(config.output).glob(kind))[0]


def shortened(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def test_rows_that_belong_together_no_longer_are_noticed(config: RunConfig) -> None:
    # Whole files, noted as they are: what is wrong is what they hold.
    output = Path(config.output)
    folders = sorted((output / "training_pca").iterdir())
    first, second = (next(folder.glob("*.parquet")) for folder in folders[:2])
    table = pq.read_table(first, partitioning=None)
    pq.write_table(table.set_column(2, "pca", pc_negated(table)), first)
    note(output, first)
    assert [problem for problem in problems(config) if "scores" in problem]
    shutil.copyfile(second, first)
    note(output, first)
    assert [problem for problem in problems(config) if "lacks images" in problem]


def replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("features", lambda _: pa.table({"a": [1]})),
        ("features", lambda table: pa.Table.from_pandas(table.to_pandas())),
        ("features", lambda table: replaced(table, "path", pa.nulls(len(table), pa.string()))),
        ("features", lambda table: replaced(table, "label", pa.array(["__HIVE_DEFAULT_PARTITION__"] * len(table)))),
        ("training_pca/*", lambda table: replaced(table, "pca", pa.array([[1.0]] + [[1.0, 2.0]] * (len(table) - 1)))),
        ("training_pca/*", lambda table: replaced(table, "pca", pa.nulls(len(table), pa.list_(pa.float32())))),
        ("training_pca/*", lambda table: replaced(table, "pca", pa.array(["text"] * len(table)))),
        ("rejects", lambda _: pa.table({"a": [1]})),
    ],
)
def test_a_table_that_somebody_wrote_in_the_place_of_ours_is_named(
    kind: str, change: Callable[[pa.Table], pa.Table], config: RunConfig
) -> None:
    file = sorted(Path(config.output).glob(f"{kind}/part-00000.parquet"))[0]
    pq.write_table(change(pq.read_table(file, partitioning=None)), file)
    assert any(str(file) in problem for problem in list(verify_output(config.output)))


def pc_negated(table: pa.Table) -> pa.Array:
    column = table["pca"].combine_chunks()
    return pa.FixedSizeListArray.from_arrays(pa.compute.negate(column.flatten()), type=column.type)


def note(output: Path, file: Path) -> None:
    from mission9.storage.local.files import file_sha256

    checksums = output / "_state" / "checksums.json"
    noted = json.loads(checksums.read_bytes())
    assert str(file.relative_to(output)) in noted
    checksums.write_text(json.dumps(noted | {str(file.relative_to(output)): file_sha256(file)}))


def test_counts_that_do_not_add_up_are_noticed(config: RunConfig) -> None:
    output = Path(config.output)
    report = json.loads((output / "run.json").read_bytes())
    report["splits"]["Training"]["featured"] += 1
    (output / "run.json").write_text(json.dumps(report))
    note(output, output / "run.json")
    assert len(problems(config)) == 1
    assert "in run.json" in problems(config)[0]


def test_no_result_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "there is no mission9 output" in capsys.readouterr().err
