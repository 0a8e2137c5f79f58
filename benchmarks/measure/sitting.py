"""One sitting: every program on the same images and weights, one after the other, each run made once."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import REPOSITORY
from benchmarks.measure.child import ChildFailed
from benchmarks.measure.ratios import DAFT, LOADER, PREDICT, RAY, UDF
from benchmarks.measure.reference import Reference
from benchmarks.measure.results import RUNNERS, Result, key, ours
from benchmarks.measure.runs import Job, Run, run_ours, run_peer
from benchmarks.measure.trees import make_tree


@dataclass(frozen=True)
class Peer:
    """A script, what it finds in its environment, the package that it needs, and the Python that has it."""

    script: str
    settings: dict[str, str]
    needs: str
    python: Path = Path(sys.executable)

    @property
    def is_installed(self) -> bool:
        return any(self.python.parent.parent.glob(f"lib/python*/site-packages/{self.needs}"))


# Ray and Daft bring what mission9 does not need, in versions of their own.
_OF_THEIR_OWN = REPOSITORY / ".venv-peers" / "bin" / "python"

PEERS = {
    UDF: Peer("spark_pandas_udf.py", {}, "pyspark"),
    LOADER: Peer("torch_loader.py", {"NHWC": "1"}, "torch"),
    PREDICT: Peer("spark_predict_batch_udf.py", {}, "pyspark"),
    RAY: Peer("ray_data.py", {}, "ray", _OF_THEIR_OWN),
    DAFT: Peer("daft_udf.py", {}, "daft", _OF_THEIR_OWN),
}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is measured on; `peers` is None where there are none."""

    source: Path
    paths: list[str]
    weights: str
    peers: Path | None
    runners: tuple[str, ...]
    precisions: tuple[str, ...]
    components: int
    repeats: int
    loop_seconds: float


class Sitting:
    """Makes the trees and the runs, and keeps what they gave in `result`."""

    def __init__(self, inputs: Inputs, result: Result, reference: Reference, work: Path) -> None:
        self.inputs = inputs
        self.result = result
        self.work = work
        self._reference = reference
        self._began = time.monotonic()

    def tree(self, images: int) -> Path:
        folder = self.work / f"images{images}"
        return folder if folder.exists() else make_tree(self.inputs.source, self.inputs.paths, images, folder)

    def ours(self, runner: str, images: int, precision: str = "float32") -> Run | None:
        """A run of ours, made if it was not yet; None where it failed, and `result.skipped` says why."""
        name = ours(runner, precision)
        options = ["--runner", RUNNERS[runner], "--components", str(self.inputs.components)]
        options += ["--precision", precision] if precision != "float32" else []
        return self._run(name, images, lambda job: run_ours(name, options, job))

    def peer(self, name: str, images: int) -> Run | None:
        """A run of a peer, likewise."""
        peer, folder = PEERS[name], self.inputs.peers
        why_not = self._why_no_peer(peer)
        if why_not or folder is None:
            self.skip(key(name, images), why_not)
            return None
        return self._run(
            name, images, lambda job: run_peer(name, peer.python, folder / peer.script, job, settings=peer.settings)
        )

    def output(self, run: Run) -> Path:
        """Return what a run of ours left."""
        return self.work / f"output {key(run.name, run.images)}"

    def skip(self, name: str, why: str) -> None:
        self.result.skipped[name] = why
        self.say(f"{name}: not measured: {why}")

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.0f} s] {text}", flush=True)

    @contextmanager
    def skipping(self, name: str) -> Iterator[None]:
        """Return where what is inside fails, note why, and go on."""
        try:
            yield
        except ChildFailed as error:
            self.skip(name, str(error))

    def _run(self, name: str, images: int, make: Callable[[Job], Run]) -> Run | None:
        label = key(name, images)
        if label in self.result.runs or label in self.result.skipped:
            return self.result.runs.get(label)
        job = Job(
            tree=self.tree(images),
            images=images,
            weights=self.inputs.weights,
            output=self.work / f"output {label}",
            reference=self._reference,
        )
        self.say(f"{name}, {images:,} images …")
        with self.skipping(label):
            run = self.result.runs[label] = make(job)
            self.say(f"    {run.wall:.1f} s, extraction {run.extraction:.1f} images/s; {run.check}")
        if not self._is_needed_again(name, images):
            shutil.rmtree(job.output, ignore_errors=True)
        return self.result.runs.get(label)

    def _is_needed_again(self, name: str, images: int) -> bool:
        """The features are for the PCA, the output for a second run."""
        return name in RUNNERS and images == self.result.sizes.many

    def _why_no_peer(self, peer: Peer) -> str:
        if self.inputs.peers is None or not (self.inputs.peers / peer.script).is_file():
            return "the peers' scripts are not at hand (--peers)"
        if not peer.is_installed:
            return f"{peer.needs} is not installed (make bench-peers)"
        if not self.inputs.weights.endswith(".pth"):
            return "the peers take weights from a .pth file alone (--weights)"
        return ""
