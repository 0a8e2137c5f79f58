"""Images that are written, replaced and deleted while they are read: never torn, never lost, never stale for good."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from mission9 import RunConfig, run
from mission9.errors import ImageError
from mission9.runners.base import InProcessRunner as Plain
from mission9.runners.base import Task
from mission9.storage.local.read_bytes import read_bytes
from tests.conftest import InProcessRunner
from tests.support.hostile import is_whole, tables


@pytest.fixture
def config(tree: Path, tmp_path: Path) -> RunConfig:
    settings = {"input": str(tree), "output": str(tmp_path / "out"), "weights": "demo", "components": 3}
    return RunConfig(**settings, max_reject_rate=0.9, no_report=True)


def fresh(config: RunConfig) -> dict[str, object]:
    """The tables of a first run of what is there now."""
    output = f"{config.output} fresh"
    run(RunConfig(**{**config.model_dump(), "output": output}), InProcessRunner())
    return tables(Path(output))


@pytest.mark.parametrize(
    ("growths", "reason", "told"),
    [
        (1, "unreadable", "the file keeps changing while it is read"),
        (10_000, "too_many_bytes", "exceed the limit of 3000"),
    ],
)
def test_a_file_that_grows_without_end_is_told(
    growths: int, reason: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows while it is read, once each time, or after each piece: no more is read than an image may have."""
    path, pieces = tmp_path / "x", 0
    path.write_bytes(b"0")

    def grow() -> None:
        nonlocal pieces
        if pieces % (growths + 1) < growths:
            with path.open("ab") as file:
                file.write(b"0")
        pieces += 1

    monkeypatch.setattr("mission9.storage.local.read_bytes.progress", grow)
    monkeypatch.setattr("mission9.storage.local.read_bytes._PAUSE", 0)
    with pytest.raises(ImageError, match=told) as caught:
        read_bytes(os.fsencode(path), max_bytes=3000)
    assert caught.value.reason == reason
    assert pieces == (10 if growths == 1 else 3000)


def test_what_is_replaced_between_listing_and_reading_is_read_as_it_is_and_noticed_by_the_next_run(
    config: RunConfig, tree: Path, pictures: list[bytes]
) -> None:
    replaced, gone = tree / "Test/a/0.jpg", tree / "Training/a/0.jpg"

    class Meanwhile(Plain):
        def map(self, task: Task, count: int) -> list[bytes]:
            if gone.exists():
                replaced.write_bytes(pictures[9])
                gone.unlink()
            return super().map(task, count)

    report = run(config, Meanwhile())
    assert report.reasons == {"vanished": 1}
    table = pd.read_parquet(f"{config.output}/features").set_index("path")
    assert table.loc["Test/a/0.jpg", "sha256"] == hashlib.sha256(pictures[9]).hexdigest()
    assert table.loc["Test/a/0.jpg", "bytes"] == len(pictures[9])
    assert run(config, InProcessRunner()).images_inferred == 1  # listed as it was before
    assert tables(Path(config.output)) == fresh(config)
    assert run(config, InProcessRunner()).images_inferred == 0
    gone.write_bytes(pictures[0])
    assert run(config, InProcessRunner()).images_inferred == 1
    assert tables(Path(config.output)) == fresh(config)


@pytest.mark.slow
def test_an_input_that_is_never_at_rest(tmp_path: Path, pictures: list[bytes]) -> None:
    root = tmp_path / "images"
    for split in ("Training", "Test"):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for n in range(25):
                (root / split / label / f"{n}.jpg").write_bytes(pictures[n % 10])
    settings = {"input": str(root), "output": str(tmp_path / "out"), "weights": "demo", "components": 3}
    config = RunConfig(**settings, max_reject_rate=0.9, no_report=True)
    files, stop, chance, changed = sorted(root.rglob("*.jpg")), threading.Event(), random.Random(7), 0

    def change() -> None:
        nonlocal changed
        while not stop.is_set():
            path = chance.choice(files)
            how = chance.randrange(3)
            if how == 0:
                path.unlink(missing_ok=True)
            elif how == 1:
                path.write_bytes(chance.choice(pictures))
            else:
                with path.open("wb") as file:  # slowly
                    for part in (data := chance.choice(pictures))[:900], data[900:]:
                        file.write(part)
                        file.flush()
                        time.sleep(0.001)
            changed += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(3):
            before = changed
            report = run(config, Plain())
            assert changed > before
            assert report.listed == report.featured + report.rejected
            assert set(report.reasons) <= {"vanished", "unreadable", "empty", "truncated"}
            table = pd.read_parquet(f"{config.output}/features")
            assert set(table["sha256"]) <= {hashlib.sha256(data).hexdigest() for data in pictures}
            assert is_whole(Path(config.output))
    finally:
        stop.set()
        thread.join()
    run(config, InProcessRunner())
    assert tables(Path(config.output)) == fresh(config)
