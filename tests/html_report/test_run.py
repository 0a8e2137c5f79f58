"""The page that a run leaves: of its own result or none, never in the way of a run, never over a file of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.errors import OutputError
from mission9.html_report import write_report
from mission9.output.layout import PAGE
from mission9.output.report_file import run_of
from mission9.results.reader import Results
from mission9.results.verify import verify_output
from tests.conftest import InProcessRunner
from tests.support.finished import copy_of, with_changes, write_tree


@pytest.fixture(scope="module")
def finished(pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run of the images of the fixture `tree`."""
    folder = tmp_path_factory.mktemp("finished")
    tree = write_tree(folder / "images", pictures)
    config = RunConfig(input=str(tree), output=str(folder / "out"), weights="demo", components=3)
    run(config, InProcessRunner())
    return config


@pytest.fixture
def done(finished: RunConfig, tmp_path: Path) -> RunConfig:
    """The finished run and its images as a test's own."""
    return copy_of(finished, tmp_path)


def id_of(config: RunConfig) -> str:
    """Of the result that lies there."""
    return str(json.loads(Path(config.output, "run.json").read_bytes())["run_id"])


def command(config: RunConfig) -> list[str]:
    return ["run", "--input", config.input, "--output", config.output, "--weights", "demo", "--components", "3"]


def page_of(config: RunConfig) -> Path:
    return Path(config.output, PAGE)


def fail(*_: object, **__: object) -> bytes:
    raise OSError(28, "No space left on device")


def test_each_run_leaves_the_page_of_its_own_result(done: RunConfig, in_process: InProcessRunner) -> None:
    first = id_of(done)
    assert run_of(page_of(done)) == first
    assert list(verify_output(done.output)) == []
    report = run(with_changes(done, components=2), in_process)
    assert run_of(page_of(done)) == id_of(done) == report.run_id != first
    assert list(verify_output(done.output)) == []


def test_with_no_report_there_is_none_and_the_old_one_goes(
    done: RunConfig, in_process: InProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert page_of(done).exists()
    run(with_changes(done, no_report=True), in_process)
    assert not page_of(done).exists()
    monkeypatch.setenv("MISSION9_NO_REPORT", "1")
    assert RunConfig().no_report
    assert main(command(done)) == 0
    assert not page_of(done).exists()
    assert list(verify_output(done.output)) == []


def test_a_page_that_cannot_be_written_costs_a_warning(
    done: RunConfig,
    in_process: InProcessRunner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mission9.html_report.render", fail)
    report = run(with_changes(done, components=2), in_process)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "No space left on device" in warning
    assert warning.endswith(f"mission9 report {done.output}")
    assert not page_of(done).exists()
    assert Results.of(done.output).report.run_id == report.run_id
    assert list(verify_output(done.output)) == []
    monkeypatch.undo()
    assert main(["report", done.output]) == 0
    assert run_of(page_of(done)) == report.run_id
    assert f"{page_of(done)}: " in capsys.readouterr().out


def test_a_run_that_fails_leaves_the_result_and_its_page(
    done: RunConfig,
) -> None:
    before = id_of(done)
    for file in sorted(Path(done.input).rglob("*.jpg"))[:10]:
        file.write_bytes(b"no image")
    assert main(command(done)) == 3
    assert run_of(page_of(done)) == id_of(done) == before


def test_what_a_killed_writer_left_is_cleared_away(done: RunConfig, in_process: InProcessRunner) -> None:
    leftover = page_of(done).with_name(f".{PAGE}.0123456789ab")
    leftover.write_bytes(b"<!DOCTYPE")
    run(done, in_process)
    assert not leftover.exists()
    assert page_of(done).exists()


def test_a_page_of_others_is_never_replaced(tree: Path, tmp_path: Path, in_process: InProcessRunner) -> None:
    config = RunConfig(input=str(tree), output=str(tmp_path / "out"), weights="demo", components=3)
    theirs = page_of(config)
    theirs.parent.mkdir()
    theirs.write_text("precious")
    for settings in ({}, {"overwrite": True}):
        with pytest.raises(OutputError, match=f"{PAGE} was not written by mission9"):
            run(with_changes(config, **settings), in_process)
    theirs.unlink()
    run(config, in_process)
    theirs.unlink()
    theirs.write_text("precious")
    (problem,) = verify_output(config.output)
    assert "was not written by mission9" in problem
    assert main(["report", config.output]) == 2
    with pytest.raises(OutputError, match=f"{PAGE} was not written by mission9"):
        run(config, in_process)
    assert theirs.read_text() == "precious"


def test_damage_is_named_and_mended(done: RunConfig, in_process: InProcessRunner) -> None:
    page = page_of(done)
    whole = page.read_bytes()
    damaged = [whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :] for at in range(0, len(whole), len(whole) // 7)]
    at = whole.index(b"mission9-run")
    damaged += [whole[:-1], whole[: len(whole) // 2], whole[:at] + b"M" + whole[at + 1 :], whole + b"<script>"]
    for content in damaged:
        page.write_bytes(content)
        (problem,) = verify_output(done.output)
        assert problem == f"{page} is damaged: mission9 report {page.parent} rewrites it"
    assert main(["report", done.output]) == 0
    assert list(verify_output(done.output)) == []
    page.write_bytes(damaged[0])
    run(done, in_process)
    assert list(verify_output(done.output)) == []


def test_the_page_of_another_result_is_named(done: RunConfig, in_process: InProcessRunner) -> None:
    old = page_of(done).read_bytes()
    run(done, in_process)
    page_of(done).write_bytes(old)
    (problem,) = verify_output(done.output)
    assert "belongs to another result" in problem


@pytest.mark.parametrize("moment", ["make_tables", "write_atomic"])
def test_a_result_that_comes_meanwhile_never_stands_beside_the_page_of_the_old_one(
    moment: str, done: RunConfig, in_process: InProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mission9 import html_report

    old = Results.of(done.output)
    then = getattr(html_report, moment)

    def meanwhile(*arguments: object) -> object:
        run(with_changes(done, components=2, no_report=True), in_process)
        return then(*arguments)

    monkeypatch.setattr(html_report, moment, meanwhile)
    with pytest.raises(OutputError, match="another result replaced the one"):
        write_report(old, page_of(done))
    assert not page_of(done).exists()
