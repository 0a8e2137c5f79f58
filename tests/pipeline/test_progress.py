"""The progress that a run shows."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from mission9.output.shards import Shard, commit
from mission9.pipeline import progress
from mission9.pipeline.progress import Display, Outcomes, ShardWatch
from mission9.schema import OUTCOME


def rows(paths: list[str], reason: str | None) -> pa.Table:
    columns = {field.name: pa.nulls(len(paths), field.type) for field in OUTCOME}
    columns |= {"path": pa.array(paths), "reason": pa.array([reason] * len(paths), pa.string())}
    return pa.table(columns, schema=OUTCOME)


def test_a_watch_counts_what_is_committed_of_its_shards_alone(tmp_path: Path) -> None:
    shards = [Shard(number, f"shard{number}", "all", 2) for number in range(3)]
    watch = ShardWatch(tmp_path, shards[:2])
    assert watch.look() == Outcomes(0, 0)
    commit(tmp_path, shards[0], rows(["a", "b"], None), rows([], None))
    assert watch.look() == Outcomes(2, 0)
    commit(tmp_path, shards[2], rows(["x", "y"], None), rows([], None))
    (tmp_path / "shard1.json").write_text('{"features"')
    assert watch.look() == Outcomes(2, 0)
    commit(tmp_path, shards[1], rows(["c"], None), rows(["d"], "empty"))
    assert watch.look() == watch.look() == Outcomes(4, 1)


def test_a_folder_that_is_gone_is_no_progress(tmp_path: Path) -> None:
    assert ShardWatch(tmp_path / "gone", [Shard(0, "shard0", "all", 2)]).look() == Outcomes(0, 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar() -> None:
    screen = Terminal()
    display = Display(Console(file=screen, force_terminal=True, width=90, color_system=None))
    looked = threading.Event()

    def look() -> Outcomes:
        looked.set()
        return Outcomes(1500, 3)

    with display.stage("list"):
        pass
    with display.stage("extract"), display.counting(4000, look):
        assert looked.wait(10)
    assert "list" in screen.getvalue()
    assert "extract" in screen.getvalue()
    assert "1,500 of 4,000 images, 3 rejected, " in screen.getvalue()


@pytest.mark.parametrize("console", [None, Console(file=io.StringIO())])
def test_elsewhere_there_is_a_line_now_and_then(
    console: Console | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.01)
    caplog.set_level(logging.INFO, "mission9")
    display, looks = Display(console), iter(range(1000))
    third = threading.Event()

    def look() -> Outcomes:
        if (look_number := next(looks)) == 3:
            third.set()
        return Outcomes(10 * look_number, 0)

    with display.stage("extract"), display.counting(20_000, look):
        assert third.wait(10)
    counted = [line for line in caplog.messages if "at work for" not in line]  # said until the counting begins
    assert counted[0] == "extract: 0 of 20,000 images, 0 rejected, 0 images/s"
    assert counted[1].startswith("extract: 10 of 20,000 images, 0 rejected, ")
    assert counted[1].endswith(" left")


def test_a_stage_that_counts_nothing_shows_its_time_on_a_terminal_and_in_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    with Display(Console(file=screen, force_terminal=True, width=90, color_system=None)).stage("start"):
        pass
    assert "start 0:00:00" in screen.getvalue()
    monkeypatch.setattr(progress, "LINE_EVERY", 0.01)
    told = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda _: told.set()  # type: ignore[assignment, method-assign]
    monkeypatch.setattr(logging.getLogger("mission9"), "handlers", [handler])
    caplog.set_level(logging.INFO, "mission9")
    with Display().stage("start"):
        assert told.wait(10)
    assert caplog.messages[0] == "start: at work for 0 s"


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "7 s"), (134, "2 min 14 s"), (7300, "2 h 1 min")])
def test_times_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text
