"""One sitting: every program on the same images and weights, one after the other, each run made once."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.measure import REPOSITORY, SHARED
from benchmarks.measure.child import ChildFailed
from benchmarks.measure.machine import this_machine
from benchmarks.measure.ratios import DAFT, LOADER, PREDICT, RAY, UDF
from benchmarks.measure.reference import Reference, reference
from benchmarks.measure.results import RUNNERS, Result, Sizes, key, ours
from benchmarks.measure.runs import Job, Run, run_ours, run_peer
from benchmarks.measure.trees import images_at_hand, jpegs, make_tree, warm

from mission9.models.weights import load_weights

MANY = 4000  # images of the main comparison, unless --count says otherwise
BUSY = 0.5  # processes that run beside


@dataclass(frozen=True)
class Peer:
    """A script, the settings in its environment, the package that it needs, and the Python that has it."""

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


class Sitting:
    """Images, weights and options of all parts; `result` is that of the comparison, `failures` fail the benchmark."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options = options
        self.work = work
        self.failures: dict[str, str] = {}
        self.machine = this_machine()
        self._began = time.monotonic()
        self.source, self.called = images_at_hand(options.images, SHARED / "fruits-360", work)
        self.paths = jpegs(self.source)
        warm(self.source, self.paths)
        self.weights: str = options.weights or next(map(str, sorted((SHARED / "weights").glob("*.pth"))), "demo")
        if self.machine.load > BUSY:
            self.say(f"other work runs on this machine (load {self.machine.load}), which spoils the figures")

    @cached_property
    def result(self) -> Result:
        options = self.options
        many = options.count or MANY
        return Result(
            machine=self.machine,
            images=self.called,
            distinct=len(self.paths),
            weights=named(self.weights),
            reference=self._reference[1],
            sizes=Sizes(many=many, few=options.few, long=options.long_count, curve=tuple(options.sizes)),
        )

    def tree(self, images: int) -> Path:
        folder = self.work / f"images{images}"
        return folder if folder.exists() else make_tree(self.source, self.paths, images, folder)

    def ours(self, runner: str, images: int, precision: str = "float32", decode: str = "exact") -> Run | None:
        """A run of ours, made if it was not yet; None where it failed, and `result.skipped` says why."""
        name = ours(runner, precision, decode)
        options = ["--runner", RUNNERS[runner], "--components", str(self.options.components)]
        options += ["--precision", precision] if precision != "float32" else []
        options += ["--decode", decode] if decode != "exact" else []
        return self._run(name, images, lambda job: run_ours(name, options, job))

    def peer(self, name: str, images: int) -> Run | None:
        """A run of a peer, likewise."""
        peer, script = PEERS[name], self.options.peers.resolve() / PEERS[name].script
        why_not = self._why_no_peer(peer)
        if why_not:
            self.skip(key(name, images), why_not)
            return None
        return self._run(name, images, lambda job: run_peer(name, peer.python, script, job, settings=peer.settings))

    def output(self, run: Run) -> Path:
        """Return the folder of results of a run of ours."""
        return self.work / f"output {key(run.name, run.images)}"

    def skip(self, name: str, why: str) -> None:
        self.result.skipped[name] = why
        self.say(f"{name}: not measured: {why}")

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.0f} s] {text}", flush=True)

    @contextmanager
    def skipping(self, name: str) -> Iterator[None]:
        """Note why a measurement fails, and go on."""
        try:
            yield
        except ChildFailed as error:
            self.skip(name, str(error))

    @cached_property
    def _reference(self) -> tuple[Reference, str]:
        """Features of images in the smallest tree, which lies in all others."""
        smallest = self.tree(min(self.options.few, self.options.count or MANY))
        return reference(self.source, smallest, self.weights, self.work)

    def _run(self, name: str, images: int, make: Callable[[Job], Run]) -> Run | None:
        label = key(name, images)
        if label in self.result.runs or label in self.result.skipped:
            return self.result.runs.get(label)
        job = Job(
            tree=self.tree(images),
            images=images,
            weights=self.weights,
            output=self.work / f"output {label}",
            reference=self._reference[0],
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
        if not (self.options.peers / peer.script).is_file():
            return "the peers' scripts are not at hand (--peers)"
        if not peer.is_installed:
            return f"{peer.needs} is not installed (make bench-peers)"
        if not self.weights.endswith(".pth"):
            return "the peers take weights from a .pth file alone (--weights)"
        return ""


def named(weights: str) -> dict[str, str]:
    """The weights by name and by content, without the folder they lie in."""
    found = load_weights(weights)
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest() if Path(weights).is_file() else found.sha256
    return {"name": Path(weights).name, "sha256": digest}
