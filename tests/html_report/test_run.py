"""The page that a run leaves: of its own result or none, never in the way of a run, never over a file of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mission9 import RunConfig, run
from mission9.cli import main
from mission9.errors import OutputError
from mission9.html_report import write_report
from mission9.output.page_file import PAGE, run_of
from mission9.results import Results
from mission9.stages.verify_output import verify_output
from tests.conftest import InProcessRunner


@pytest.fixture
def config(tree: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(input=str(tree), output=str(tmp_path / "out"), weights="demo", components=3)


def changed(config: RunConfig, **settings: object) -> RunConfig:
    return RunConfig(**{**config.model_dump(), **settings})


def command(config: RunConfig) -> list[str]:
    return ["run", "--input", config.input, "--output", config.output, "--weights", "demo", "--components", "3"]


def page_of(config: RunConfig) -> Path:
    return Path(config.output, PAGE)


def fail(*_: object, **__: object) -> bytes:
    raise OSError(28, "No space left on device")


def test_each_run_leaves_the_page_of_its_own_result(config: RunConfig, in_process: InProcessRunner) -> None:
    ids = set()
    for components in (3, 2):
        report = run(changed(config, components=components), in_process)
        assert run_of(page_of(config)) == report.run_id
        assert json.loads(Path(config.output, "run.json").read_bytes())["run_id"] == report.run_id
        assert list(verify_output(config.output)) == []
        ids.add(report.run_id)
    assert len(ids) == 2


def test_with_no_report_there_is_none_and_the_old_one_goes(
    config: RunConfig, in_process: InProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config, in_process)
    assert page_of(config).exists()
    run(changed(config, no_report=True), in_process)
    assert not page_of(config).exists()
    monkeypatch.setenv("MISSION9_NO_REPORT", "1")
    assert RunConfig().no_report
    assert main(command(config)) == 0
    assert not page_of(config).exists()
    assert list(verify_output(config.output)) == []


def test_a_page_that_cannot_be_written_costs_a_warning(
    config: RunConfig,
    in_process: InProcessRunner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(config, in_process)
    monkeypatch.setattr("mission9.html_report.render", fail)
    report = run(changed(config, components=2), in_process)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "No space left on device" in warning
    assert warning.endswith(f"mission9 report {config.output}")
    assert not page_of(config).exists()
    assert Results.of(config.output).report["run_id"] == report.run_id
    assert list(verify_output(config.output)) == []
    monkeypatch.undo()
    assert main(["report", config.output]) == 0
    assert run_of(page_of(config)) == report.run_id
    assert f"{page_of(config)}: " in capsys.readouterr().out


def test_a_run_that_fails_leaves_the_result_and_its_page(
    config: RunConfig, tree: Path, in_process: InProcessRunner
) -> None:
    report = run(config, in_process)
    for file in sorted(tree.rglob("*.jpg"))[:10]:
        file.write_bytes(b"no image")
    assert main(command(config)) == 3
    assert run_of(page_of(config)) == report.run_id


def test_what_a_killed_writer_left_is_cleared_away(config: RunConfig, in_process: InProcessRunner) -> None:
    run(config, in_process)
    leftover = page_of(config).with_name(f".{PAGE}.0123456789ab")
    leftover.write_bytes(b"<!DOCTYPE")
    run(config, in_process)
    assert not leftover.exists()
    assert page_of(config).exists()


def test_a_page_of_others_is_never_replaced(config: RunConfig, in_process: InProcessRunner) -> None:
    theirs = page_of(config)
    theirs.parent.mkdir()
    theirs.write_text("precious")
    for settings in ({}, {"overwrite": True}):
        with pytest.raises(OutputError, match=f"{PAGE} was not written by mission9"):
            run(changed(config, **settings), in_process)
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


def test_damage_is_named_and_mended(config: RunConfig, in_process: InProcessRunner) -> None:
    run(config, in_process)
    page = page_of(config)
    whole = page.read_bytes()
    damaged = [whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :] for at in range(0, len(whole), len(whole) // 7)]
    at = whole.index(b"mission9-run")
    damaged += [whole[:-1], whole[: len(whole) // 2], whole[:at] + b"M" + whole[at + 1 :], whole + b"<script>"]
    for content in damaged:
        page.write_bytes(content)
        (problem,) = verify_output(config.output)
        assert problem == f"{page} is damaged: mission9 report {page.parent} writes it anew"
    assert main(["report", config.output]) == 0
    assert list(verify_output(config.output)) == []
    page.write_bytes(damaged[0])
    run(config, in_process)
    assert list(verify_output(config.output)) == []


def test_the_page_of_another_result_is_named(config: RunConfig, in_process: InProcessRunner) -> None:
    run(config, in_process)
    old = page_of(config).read_bytes()
    run(config, in_process)
    page_of(config).write_bytes(old)
    (problem,) = verify_output(config.output)
    assert "is of another result" in problem


@pytest.mark.parametrize("moment", ["make_tables", "write_whole"])
def test_a_result_that_comes_meanwhile_never_stands_beside_the_page_of_the_old_one(
    moment: str, config: RunConfig, in_process: InProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mission9 import html_report

    run(config, in_process)
    old = Results.of(config.output)
    then = getattr(html_report, moment)

    def meanwhile(*arguments: object) -> object:
        run(changed(config, components=2, no_report=True), in_process)
        return then(*arguments)

    monkeypatch.setattr(html_report, moment, meanwhile)
    with pytest.raises(OutputError, match="another result took the place"):
        write_report(old, page_of(config))
    assert not page_of(config).exists()
