"""Changed, removed or truncated lines in an output's audit log are detected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mission9.cli import main
from mission9.config import RunConfig
from mission9.erasure.erase import erase
from mission9.erasure.selection import ErasureRequest
from mission9.output.audit_log import append, verify
from mission9.output.layout import AUDIT_LOG
from mission9.output.local import Output
from mission9.pipeline.run import run
from mission9.storage.local.files import file_sha256
from tests.support.finished import copy_tree, write_tree


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    """Two runs and an erasure."""
    folder = tmp_path_factory.mktemp("log")
    settings = {"input": str(write_tree(folder / "images", pictures)), "output": str(folder / "out")}
    for components in (3, 4):
        run(RunConfig(**settings, weights="demo", components=components, no_report=True))
    erase(str(folder / "out"), ErasureRequest("erase", ["Test/a/0.jpg"]))
    return folder / "out"


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    return copy_tree(finished, tmp_path / "out")


def problems(output: Path) -> list[str]:
    place = Output(output)
    return list(verify(place.state_files, place.last_report()))


def test_a_log_that_is_whole(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert problems(output) == []
    lines = (output / "_state" / AUDIT_LOG).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["action"] for record in records] == ["run", "run", "erase", "erased"]
    assert records[0]["listed"] == 15
    assert records[2]["listed"] == 14
    assert "Test/a/0.jpg" not in "".join(lines)
    assert main(["verify", str(output)]) == 0
    assert capsys.readouterr().out == f"{output} is whole\n"


def changed(lines: list[str]) -> list[str]:
    return [lines[0].replace('"listed": 15', '"listed": 14'), *lines[1:]]


def forged(lines: list[str]) -> list[str]:
    """The last record changed: nothing after it says what it was, but what is noted beside the tombstones."""
    return [*lines[:-1], lines[-1].replace('"images": 1', '"images": 0')]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (changed, "record 2 of audit.jsonl does not follow the one before"),
        (lambda lines: [lines[0], *lines[2:]], "does not follow"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "does not follow"),
        (lambda lines: [*lines[:1], *lines[:1], *lines[1:]], "does not follow"),
        (lambda lines: ["{", *lines[1:]], "record 1 of audit.jsonl is damaged"),
        (lambda lines: lines[:-1], "erased.json records 4"),
        (lambda lines: lines[:-2], "run.json records 3: its end is missing"),
        (lambda lines: lines[:-2], "but receipts/"),
        (lambda _: [], "its end is missing"),
        (lambda _: [], "there is no record in audit.jsonl"),
        (forged, "record 4 of audit.jsonl differs from the one recorded in erased.json"),
    ],
)
def test_what_is_wrong_is_found(
    output: Path, spoil: Callable[[list[str]], list[str]], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = output / "_state" / AUDIT_LOG
    log.write_text("".join(f"{line}\n" for line in spoil(log.read_text().splitlines())))
    assert any(told in problem for problem in problems(output)), problems(output)
    assert main(["verify", str(output)]) == 1
    assert " problems in " in capsys.readouterr().out


def test_a_receipt_is_what_the_log_says_it_is(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (receipt,) = (output / "_state/receipts").iterdir()
    record = json.loads((output / "_state" / AUDIT_LOG).read_text().splitlines()[-1])
    assert record["receipt_sha256"] == file_sha256(receipt)
    told = json.loads(receipt.read_bytes())
    receipt.write_text(json.dumps(told | {"images": []}, indent=2))
    assert problems(output) == [f"receipts/{receipt.name} differs from the one in record 4: it was changed"]
    receipt.unlink()
    assert problems(output) == [f"receipts/{receipt.name}, named in record 4, is missing"]
    assert main(["verify", str(output)]) == 1


def test_a_chain_made_anew_is_found_by_what_run_json_notes(output: Path) -> None:
    log, state = output / "_state" / AUDIT_LOG, Output(output).state_files
    old = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    for record in old:
        facts: dict[str, Any] = {**record, "listed": 1}
        append(state, record["action"], {name: facts[name] for name in facts if name not in ("n", "previous")})
    assert any("differs from the one recorded in run.json" in problem for problem in problems(output))


def test_without_an_output_nothing_is_whole(tmp_path: Path) -> None:
    assert main(["verify", str(tmp_path / "none")]) == 2
    (tmp_path / "none/_state").mkdir(parents=True)  # of which no run has come to an end
    assert main(["verify", str(tmp_path / "none")]) == 2
