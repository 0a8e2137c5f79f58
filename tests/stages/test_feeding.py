"""Readers that fail, and what it costs to feed those that do not."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from mission9.concurrency.watchdog import PATIENCE
from mission9.decoding import feeder
from mission9.decoding.feeder import FeederSettings, Given, Prepared, prepare_in_order
from mission9.decoding.pixels import pixels_digest
from mission9.decoding.protocol import MAX_IMAGES, DecoderSettings
from mission9.models.engines import choose_engine
from mission9.models.extraction import Extraction
from mission9.models.weights import Weights
from mission9.options import MAX_PIXELS
from mission9.schema import FEATURES
from mission9.sources.base import Root
from mission9.stages.infer_features import infer_features
from mission9.stages.prepare_images import ImageRow, Pixels

_unlike = count()
READER = "mission9.decoding.reader"

# Calls of functions in the feeding process for an image: 31 take 17 to 29 microseconds of CPU.
MOST_CALLS = 40


@pytest.fixture
def settings() -> Iterator[FeederSettings]:
    """Other limits than elsewhere, so that the readers are new ones."""
    settings = FeederSettings(DecoderSettings("stretch", 1_000_000), 10_000_000 + next(_unlike))
    yield settings
    for idle in [idle for (found, _), idle in feeder._idle.items() if found == settings]:
        while not idle.empty():
            for reader in idle.get():
                reader.end()


def readers(settings: FeederSettings) -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if str(settings.max_bytes) in child.cmdline()]


def prepared(batches: list[list[Given]], settings: FeederSettings) -> list[Prepared]:
    return [replace(found, pixels=found.pixels.copy()) for found in prepare_in_order(batches, settings)]


def given(pictures: list[bytes]) -> list[Given]:
    return [Given(data, is_content=True) for data in pictures]


def test_files_and_contents_give_the_same(pictures: list[bytes], tmp_path: Path, settings: FeederSettings) -> None:
    files = []
    for number, data in enumerate(pictures):
        (tmp_path / f"{number}.jpg").write_bytes(data)
        files.append(Given(os.fsencode(tmp_path / f"{number}.jpg"), is_content=False))
    gone = Given(os.fsencode(tmp_path / "gone.jpg"), is_content=False)
    of_files, of_contents, _ = prepared([[*files[:5], gone, *files[5:]], given(pictures), []], settings)
    np.testing.assert_array_equal(of_files.pixels, of_contents.pixels)
    assert [(one.at, one.stage, one.reason) for one in of_files.rejected] == [(5, "read", "vanished")]
    assert of_files.size.tolist() == [*map(len, pictures[:5]), -1, *map(len, pictures[5:])]
    digests = [bytes(digest).hex() for digest in np.delete(of_files.sha256, 5, 0)]
    assert digests == [hashlib.sha256(data).hexdigest() for data in pictures]


def test_several_readers_keep_the_order(pictures: list[bytes], settings: FeederSettings) -> None:
    settings = replace(settings, readers=3)
    batches = [given(pictures[n % 10 : n % 10 + 1] * (1 + n % MAX_IMAGES)) for n in range(40)]
    found = prepared(batches, settings)
    assert len(readers(settings)) == 3
    assert [one.size.tolist() for one in found] == [[len(one.data) for one in batch] for batch in batches]


@pytest.mark.parametrize("when", ["idle", "at work"])
def test_a_reader_that_dies_fails_the_task_and_the_next_has_another(
    when: str, pictures: list[bytes], settings: FeederSettings
) -> None:
    right = prepared([given(pictures)], settings)[0]
    (reader,) = readers(settings)

    def batches() -> Iterator[list[Given]]:
        for number in range(9):
            if number == (0 if when == "idle" else 4):
                reader.kill()
            yield given(pictures)

    with pytest.raises(RuntimeError, match="an image reader ended with exit code -9"):
        list(prepare_in_order(batches(), settings))
    np.testing.assert_array_equal(prepared([given(pictures)], settings)[0].pixels, right.pixels)


def test_an_answer_that_nobody_waited_for_is_not_the_next_batchs(
    pictures: list[bytes], settings: FeederSettings
) -> None:
    right = prepared([given([data]) for data in pictures], settings)
    unfinished = prepare_in_order([given([data]) for data in pictures], settings)
    next(unfinished)
    unfinished.close()  # type: ignore[attr-defined] # a generator
    again = prepared([given([data]) for data in reversed(pictures)], settings)
    for one, other in zip(reversed(again), right, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_reader_that_does_not_start_is_no_verdict_on_an_image(
    pictures: list[bytes], settings: FeederSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="an image reader ended with exit code 7"):
        prepared([given(pictures)], settings)


def test_a_stopped_reader_is_noticed(
    pictures: list[bytes], settings: FeederSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared([given(pictures)], settings)
    (reader,) = readers(settings)
    reader.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(feeder, "LOOK", 0.01)  # seconds; a stop is counted in looks
    monkeypatch.setattr(feeder, "PATIENCE", replace(PATIENCE, stop=0.1))
    with pytest.raises(RuntimeError, match="an image reader does not answer"):
        prepared([given(pictures)], settings)
    assert not readers(settings)


def test_readers_end_with_their_parent(pictures: list[bytes], settings: FeederSettings) -> None:
    prepared([given(pictures)], settings)
    (reader,) = readers(settings)
    (decoder,) = reader.children()
    (idle,) = [idle for (found, _), idle in feeder._idle.items() if found == settings]
    (ours,) = idle.get()
    ours._requests.close()
    assert not psutil.wait_procs([reader, decoder], timeout=60)[1]
    ours.end()


class Null:
    """An engine that answers at once; it remembers which memory it was given."""

    batch_size = 2

    def __init__(self) -> None:
        self.given: list[Pixels] = []

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        self.given.append(images)
        return np.zeros((len(images), FEATURES), np.float32)


def test_feeding_costs_little(demo_weights: Weights, monkeypatch: pytest.MonkeyPatch, settings: FeederSettings) -> None:
    """Calls are counted, which are as many on a busy machine; benchmarks/measure/feeding.py measures the time."""
    engine = Null()
    monkeypatch.setattr("mission9.stages.infer_features.make_engine", lambda *_, **__: engine)
    start, script = subprocess.Popen, str(Path(__file__).parents[1] / "support" / "instant_reader.py")

    def instant(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return start([sys.executable, script, *command[command.index(READER) + 1 :]], **options)

    monkeypatch.setattr("mission9.decoding.feeder.subprocess.Popen", instant)
    extraction = Extraction(
        engine=choose_engine(device="cpu"),
        weights=demo_weights,
        preprocess="stretch",
        max_pixels=MAX_PIXELS,
        max_bytes=settings.max_bytes,
        pixels=pixels_digest(),
    )
    rows = [ImageRow(f"Training/apple/{n}.jpg", "Training", "apple", 5000, Root("/nowhere")) for n in range(4096)]
    assert sum(map(len, infer_features(rows, extraction))) == len(rows)  # imports, and starts the reader
    with counted_calls() as calls:
        assert sum(map(len, infer_features(rows, extraction))) == len(rows)
    assert sum(calls.values()) <= MOST_CALLS * len(rows)
    batches = len(rows) // MAX_IMAGES
    assert calls["posix.write"] <= batches + 8  # a batch is a message; a pipe may take one in parts
    assert all(np.shares_memory(images, engine.given[0].base) for images in engine.given)


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """The calls of functions by this thread, by name, those of C's included."""
    found: Counter[str] = Counter()

    def count_call(frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            found[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            found[f"{called.__module__}.{called.__name__}"] += 1

    before = sys.getprofile()
    sys.setprofile(count_call)
    try:
        yield found
    finally:
        sys.setprofile(before)
