"""Shared fixtures. Nothing here stands in for a part that can run: engines, Spark and images are real."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mission9 import devices, runners
from mission9.runners import Task
from mission9.sample import VARIETIES, draw, jpeg, write_sample
from mission9.weights import Tensors, Weights, load_weights

if TYPE_CHECKING:  # the GPU tests run where neither Spark nor pydantic is
    from pyspark.sql import SparkSession

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"
REAL_WEIGHTS = SHARED / "weights" / "mobilenet_v2-imagenet-converted.pth"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = pytest.mark.skip(reason=f"the real images and weights are not in {SHARED}")
    why_no_gpu = devices.why_no_cuda()
    for item in items:
        if item.get_closest_marker("gpu") and why_no_gpu:
            item.add_marker(pytest.mark.skip(reason=f"no GPU to use: {why_no_gpu}"))
        if item.get_closest_marker("real") and not SHARED.is_dir():
            item.add_marker(absent)
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MISSION9_") or name in ("SPARK_DRIVER_MEMORY", "SPARK_EXECUTOR_MEMORY"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    from mission9.config import RunConfig
    from mission9.session import start_session

    session = start_session(RunConfig(driver_memory="2g", master="local[2]"))
    yield session
    session.stop()


@pytest.fixture
def standalone_cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a Spark master on the loopback with two worker processes of one core each."""
    import pyspark

    home = Path(pyspark.__file__).parent
    port, web = free_port(), free_port()
    address = f"spark://127.0.0.1:{port}"
    quiet = f"-Dlog4j2.configurationFile=file:{REPOSITORY / 'src/mission9/data/log4j2.properties'}"
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(home), "SPARK_DAEMON_JAVA_OPTS": quiet}
    start = [str(home / "bin" / "spark-class")]
    deploy = "org.apache.spark.deploy"
    master = [f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(web)]
    worker = [f"{deploy}.worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0"]
    with contextlib.ExitStack() as stack:
        commands = [master] + [[*worker, "--work-dir", str(tmp_path / f"worker{n}"), address] for n in range(2)]
        for command in commands:
            process = stack.enter_context(subprocess.Popen([*start, *command], env=environment))
            stack.callback(process.terminate)
        _wait_for_workers(f"http://127.0.0.1:{web}/json/", 2)
        yield address


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_workers(url: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if json.load(answer)["aliveworkers"] == count:
                    return
        except OSError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{url} does not show {count} workers")


class InProcessRunner(runners.InProcessRunner):
    """Tasks in this process, counted, as if there were two workers."""

    parallelism = 2

    def __init__(self) -> None:
        self.tasks = 0

    def map(self, task: Task, count: int) -> list[bytes]:
        self.tasks += count
        return super().map(task, count)


@pytest.fixture
def in_process() -> InProcessRunner:
    return InProcessRunner()


@pytest.fixture(scope="session")
def demo_weights() -> Weights:
    return load_weights("demo")


@pytest.fixture(scope="session")
def demo_tensors(demo_weights: Weights) -> Tensors:
    return demo_weights.tensors()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated sample as `mission9 demo` writes it."""
    root = tmp_path_factory.mktemp("sample") / "fruits"
    write_sample(root)
    return root


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Ten generated JPEGs, all different."""
    return [jpeg(draw(VARIETIES[n], stream=7, number=n)) for n in range(10)]


@pytest.fixture
def tree(tmp_path: Path, pictures: list[bytes]) -> Path:
    """Training: a (6), b (6); Test: a (2), b (1). Fifteen images."""
    root = tmp_path / "images"
    for folder, count in (("Training/a", 6), ("Training/b", 6), ("Test/a", 2), ("Test/b", 1)):
        (root / folder).mkdir(parents=True)
        for n in range(count):
            (root / folder / f"{n}.jpg").write_bytes(pictures[n])
    return root


def assert_close(found: np.ndarray, wanted: np.ndarray, *, cosine: float, relative: float) -> None:
    """Each row points the same way and is as long, within what the design promises."""
    assert found.shape == wanted.shape
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    lengths = np.linalg.norm(wanted, axis=1)
    cosines = (found * wanted).sum(1) / (np.linalg.norm(found, axis=1) * lengths)
    assert cosines.min() >= cosine
    assert (np.linalg.norm(found - wanted, axis=1) / lengths).max() <= relative
