"""Every stage of a run of very many images that cost nothing: time, memory, files and bytes.

python -m benchmarks.measure.scale --images 1000000 [--labels 1000] [--json FILE]

The images are empty files. Readers and an engine that answer at once stand in for decoding and the network, so what is
left is what mission9 itself does for an image. One process does all the work, so its memory includes a worker's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from benchmarks.measure import REPOSITORY
from benchmarks.measure.listing import peak_rss
from numpy.typing import NDArray

from mission9 import RunConfig, run
from mission9.erasure.erase import erase
from mission9.erasure.selection import ErasureRequest
from mission9.options import MAX_BYTES
from mission9.runners.base import InProcessRunner
from mission9.schema import FEATURES

ERASED = 10
_READER = "mission9.decoding.reader"
_INSTANT = REPOSITORY / "tests" / "support" / "instant_reader.py"

# The steps of a run by name: the functions that it calls in turn.
_STEPS = {
    "list and plan": "make_plan",
    "extract": "_extract",
    "compact and collect": "_compact",
    "fit": "fit_pca",
    "project and save": "make_scores",
    "publish": "_publish",
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage: seconds, also of this process's CPU; the largest RSS; the files and bytes in the output at its end."""

    name: str
    seconds: float
    cpu: float
    peak: int
    files: int
    bytes: int


_HEAD = """| stage | seconds | CPU seconds | peak memory | files in the output | their size |
|---|--:|--:|--:|--:|--:|"""


class Meter:
    """Measures the stages of the work on an output."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self.stages: list[Stage] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage, which contains no other."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start, used = time.perf_counter(), time.process_time()
        yield
        seconds, cpu, peak = time.perf_counter() - start, time.process_time() - used, peak_rss()
        files, size = held(self._output)
        facts = Stage(name=name, seconds=round(seconds, 3), cpu=round(cpu, 3), peak=peak, files=files, bytes=size)
        self.stages.append(facts)
        print(row(self.stages[-1]), flush=True)


def held(folder: Path) -> tuple[int, int]:
    """The files below a folder, and their bytes on the disk; a file with several links counts once."""
    facts = {
        (found := os.lstat(os.path.join(place, name))).st_ino: found.st_blocks * 512
        for place, _, names in os.walk(folder)
        for name in names
    }
    return len(facts), sum(facts.values())


def make_images(root: Path, images: int, labels: int) -> None:
    """Create empty files, `images` in all, in the folders of `labels` labels."""
    for label in range(labels):
        folder = root / "Training" / f"label {label:06}"
        folder.mkdir(parents=True)
        for number in range(images * label // labels, images * (label + 1) // labels):
            os.mknod(folder / f"{number:09}_100.jpg")


class Null:
    """An engine that answers at once, with few different vectors, so that the tables compress well."""

    batch_size = 64

    def __init__(self) -> None:
        self._vectors = np.random.default_rng(9).random((self.batch_size, FEATURES), np.float32)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._vectors[: len(images)]


@contextmanager
def costless_images() -> Iterator[None]:
    """Replace the decoding and the network by instant answers."""
    start, engine = subprocess.Popen, Null()

    def instant(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if _READER in command:
            command = [sys.executable, str(_INSTANT), *command[command.index(_READER) + 1 :]]
        return start(command, **options)

    with (
        patch("mission9.decoding.feeder.subprocess.Popen", instant),
        patch("mission9.stages.infer_features.make_engine", lambda *_, **__: engine),
    ):
        yield


@contextmanager
def measured_steps(meter: Meter, prefix: str) -> Iterator[None]:
    """Measure the steps of a run."""

    def metered(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def measure(*args: Any, **options: Any) -> Any:
            with meter.stage(f"{prefix}{name}"):
                return step(*args, **options)

        return measure

    module = sys.modules[run.__module__]
    with ExitStack() as stack:
        for name, step in _STEPS.items():
            stack.enter_context(patch.object(module, step, metered(name, getattr(module, step))))
        yield


def measure(images: int, labels: int, folder: Path) -> list[Stage]:
    """Run twice and erase, with everything in a folder."""
    source, output = folder / "images", folder / "results"
    make_images(source, images, labels)
    # A limit that no other run has, whose readers would be taken.
    settings = {"weights": "demo", "runner": "local", "workers": 1, "no_report": True, "max_bytes": MAX_BYTES - 1}
    config = RunConfig(input=str(source), output=str(output), **settings)
    meter = Meter(output)
    with costless_images():
        for prefix in ("", "again: "):
            with measured_steps(meter, prefix):
                run(config, InProcessRunner())
        ids = [f"Training/label {0:06}/{number:09}_100.jpg" for number in range(ERASED)]
        with meter.stage(f"erase {ERASED}"):
            erase(str(output), ErasureRequest(why="erase", ids=ids))
    return meter.stages


def row(stage: Stage) -> str:
    """A row of the table."""
    sizes = f"{stage.peak / 2**20:,.0f} MiB | {stage.files:,} | {stage.bytes / 2**20:,.1f} MiB"
    return f"| {stage.name} | {stage.seconds:,.1f} | {stage.cpu:,.1f} | {sizes} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    print(_HEAD)
    with tempfile.TemporaryDirectory(prefix="mission9-scale-") as folder:
        stages = measure(asked.images, asked.labels, Path(folder))
    if asked.json:
        asked.json.write_text(json.dumps([asdict(stage) for stage in stages], indent=1) + "\n")


if __name__ == "__main__":
    main()
