"""Shared fixtures. Nothing here stands in for a part that can run: engines, Spark and images are real."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mission9 import devices
from mission9.datasets.demo import VARIETIES, draw, jpeg, write_sample
from mission9.models.weights import Tensors, Weights, load_weights
from mission9.runners import base
from mission9.runners.base import Task

if TYPE_CHECKING:  # the GPU tests run where neither Spark nor pydantic is
    from pyspark.sql import SparkSession

    from mission9.results.reader import Results
    from tests.support.cluster import Cluster

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"
# Fixtures that take seconds to make: one process of pytest-xdist has all the tests of each.
SHARED_FIXTURES = (
    *("spark", "undivided", "server", "browser", "results", "hostile", "fruits_results"),
    *("connect_server", "small", "demo"),
)
REAL_WEIGHTS = SHARED / "weights" / "mobilenet_v2-imagenet-converted.pth"


pytest_plugins = ["tests.support.changed"]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    absent = pytest.mark.skip(reason=f"the real images and weights are not in {SHARED}")
    why_no_gpu = devices.why_no_cuda()
    for item in items:
        if item.get_closest_marker("gpu") and why_no_gpu:
            item.add_marker(pytest.mark.skip(reason=f"no GPU to use: {why_no_gpu}"))
        if item.get_closest_marker("real") and not SHARED.is_dir():
            item.add_marker(absent)
        fixtures = getattr(item, "fixturenames", ())
        if "spark" in fixtures:
            item.add_marker(pytest.mark.spark)
        if item.get_closest_marker("xdist_group"):
            continue
        if shared := next((name for name in SHARED_FIXTURES if name in fixtures), None):
            # A server starts in seconds, and the slow tests of all the buckets take ten minutes.
            apart = f"server {item.path.stem}" if shared == "server" and item.get_closest_marker("slow") else shared
            item.add_marker(pytest.mark.xdist_group(apart))
        elif not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if not config.getoption("--changed"):  # that has an order of its own
        sort_longest_first(items)


def sort_longest_first(items: list[pytest.Item]) -> None:
    """Begin with the tests of Spark and of the server, then the largest groups: no process ends long after others."""
    groups = {item: group.args[0] if (group := item.get_closest_marker("xdist_group")) else item for item in items}
    sizes = Counter(groups.values())
    items.sort(key=lambda item: (groups[item] != "spark", "server" not in str(groups[item]), -sizes[groups[item]]))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape file names that are no UTF-8: pytest-xdist cannot send them."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set a temporary folder of this process's own, without the short-lived files of other pytest-xdist processes."""
    folder = str(tmp_path_factory.mktemp("tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MISSION9_") or name in ("SPARK_DRIVER_MEMORY", "SPARK_EXECUTOR_MEMORY"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    from mission9.config import RunConfig
    from mission9.runners.spark_session import start_session
    from tests.support.cluster import FAST_START

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JDK_JAVA_OPTIONS", FAST_START)
        session = start_session(RunConfig(driver_memory="2g", master="local[2]"))
    session.conf.set("spark.sql.shuffle.partitions", 4)  # of small tables; 200 are usual
    yield session
    session.stop()


@pytest.fixture
def standalone_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Spark master on the loopback with two worker processes of one core each."""
    from tests.support.cluster import Cluster

    with Cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def connect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Spark Connect server on the loopback, a process of its own."""
    pytest.importorskip("grpc", reason="Spark Connect's packages are not installed")
    from tests.support.cluster import connect_server

    with connect_server(tmp_path_factory.mktemp("connect")) as address:
        yield address


class InProcessRunner(base.InProcessRunner):
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
def fruits_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Of ten pictures in Training and five in Test of each variety of the sample, which lie beside them in `fruits`."""
    from mission9 import RunConfig, run
    from mission9.results.reader import Results
    from tests.support.finished import write_fruits

    images = tmp_path_factory.mktemp("fruits_results") / "fruits"
    write_fruits(images, varieties=len(VARIETIES), training=10, test=5)
    output = images.parent / "out"
    run(RunConfig(input=str(images), output=str(output), weights="demo", no_report=True), InProcessRunner())
    return Results.of(output)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Ten generated JPEGs, all different."""
    return [jpeg(draw(VARIETIES[n], stream=7, number=n)) for n in range(10)]


@pytest.fixture
def tree(tmp_path: Path, pictures: list[bytes]) -> Path:
    """Training: a (6), b (6); Test: a (2), b (1). Fifteen images."""
    from tests.support.finished import write_tree

    return write_tree(tmp_path / "images", pictures)


def assert_close(found: np.ndarray, wanted: np.ndarray, *, cosine: float, relative: float) -> None:
    """Each row points the same way and is as long, within what the design promises."""
    assert found.shape == wanted.shape
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    lengths = np.linalg.norm(wanted, axis=1)
    cosines = (found * wanted).sum(1) / (np.linalg.norm(found, axis=1) * lengths)
    assert cosines.min() >= cosine
    assert (np.linalg.norm(found - wanted, axis=1) / lengths).max() <= relative


def add_odd_files(tree: Path, names: Sequence[str], picture: bytes) -> Path:
    """The tree with names that need care, a damaged and an empty image, and a file that is none."""
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(picture)
    (tree / "Training/a/broken.jpg").write_bytes(picture[:300])
    (tree / "Training/a/empty.jpg").write_bytes(b"")
    (tree / "LICENSE").write_text("free")
    return tree
