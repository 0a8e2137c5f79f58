"""Code, environment and weights reach a cluster as the docs say: a wheel, an archive, and inside the tasks."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mission9.config import RunConfig
from mission9.pipeline.run import run
from tests.conftest import REPOSITORY, InProcessRunner
from tests.pipeline.test_pipeline import assert_same_tables
from tests.support.cluster import FAST_START, Cluster
from tests.support.finished import write_fruits

# One process of pytest-xdist has the cluster, the wheel and the environment.
pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.xdist_group("shipping")]

MAIN = REPOSITORY / "src/mission9/deploy/files/spark_main.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy of the sources, under the name that Spark takes for an archive of modules."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    shutil.copytree(REPOSITORY / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "."]
    subprocess.run([*command, "--wheel-dir", "dist"], cwd=folder, check=True, capture_output=True)
    (built,) = (folder / "dist").iterdir()
    return built.rename(built.with_suffix(".zip"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an environment that holds what mission9 needs, and not mission9.

    Packages are found by a path, where venv-pack would pack them: half a gigabyte for each worker.
    """
    folder = tmp_path_factory.mktemp("environment") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    archive = folder.with_name("environment.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        for item in folder.iterdir():
            tar.add(item, item.name)
    return archive


def alone(**more: str) -> dict[str, str]:
    """This process's environment without what leads Python to the sources."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more


@pytest.fixture(scope="module")
def bare_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two worker processes that know nothing of the sources."""
    with Cluster(tmp_path_factory.mktemp("cluster"), environment={"PYTHONPATH": ""}) as cluster:
        yield cluster


def submit(cluster: Cluster, environment: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """spark-submit with the environment's archive, from a folder that holds nothing."""
    import pyspark

    home = Path(pyspark.__file__).parent
    command: list[str | Path] = [home / "bin" / "spark-submit", "--master", cluster.master]
    command += ["--driver-memory", "1g", "--executor-memory", "1g", "--archives", f"{environment}#environment"]
    driver = environment.parent / "environment" / "bin" / "python"
    programs = {"PYSPARK_PYTHON": "./environment/bin/python", "PYSPARK_DRIVER_PYTHON": str(driver)}
    facts = alone(SPARK_HOME=str(home), SPARK_LOCAL_IP="127.0.0.1", JDK_JAVA_OPTIONS=FAST_START, **programs)
    folder = environment.parent / "nothing"
    folder.mkdir(exist_ok=True)
    return subprocess.run([*command, *arguments], env=facts, cwd=folder, capture_output=True, text=True, check=False)


def test_the_environment_does_not_hold_mission9(environment: Path, tmp_path: Path) -> None:
    python = environment.parent / "environment" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", "import numpy, pyarrow; import mission9"],
        cwd=tmp_path, env=alone(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "No module named 'mission9'" in done.stderr


def test_a_wheel_and_an_archive_give_a_cluster_all_it_needs(
    wheel: Path, environment: Path, bare_cluster: Cluster, tmp_path: Path
) -> None:
    images = write_fruits(tmp_path / "fruits", varieties=8, training=8, test=2)
    shipped = RunConfig(input=str(images), output=str(tmp_path / "shipped"), weights="demo", components=5)
    settings = ["--input", shipped.input, "--output", shipped.output, "--weights", "demo", "--components", "5"]
    done = submit(bare_cluster, environment, "--py-files", wheel, MAIN, "run", *settings)
    assert done.returncode == 0, done.stderr
    assert "on the master of spark-submit" in done.stdout  # where spark-submit has both go
    here = RunConfig(**{**shipped.model_dump(), "output": str(tmp_path / "here")})
    run(here, InProcessRunner())
    assert_same_tables(here, shipped)
    assert Path(shipped.output, "report.html").exists()  # its parts are read from the wheel


WHERE = """
from pyspark.sql import SparkSession
import mission9, pyarrow as pa

def where(batches):
    import os, mission9
    for _ in batches:
        yield pa.record_batch([pa.array([os.path.abspath(mission9.__file__)])], ["where"])

spark = SparkSession.builder.getOrCreate()
for row in spark.range(0, 2, 1, 2).mapInArrow(where, "where string").collect():
    print("imported:", row.where)
"""


def test_workers_import_the_wheel_that_spark_brought_them(
    wheel: Path, environment: Path, bare_cluster: Cluster, tmp_path: Path
) -> None:
    script = tmp_path / "where.py"
    script.write_text(WHERE)
    done = submit(bare_cluster, environment, "--py-files", wheel, script)
    assert done.returncode == 0, done.stderr
    places = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("imported:")]
    assert len(places) == 2
    for place in places:
        assert re.search(rf"/worker\d/app-[^/]+/\d/{re.escape(wheel.name)}/mission9/__init__.py$", place)


def test_without_the_wheel_there_is_no_mission9(environment: Path, tmp_path: Path) -> None:
    """By the driver's Python, which is all that spark-submit would have start the program."""
    done = subprocess.run(
        [environment.parent / "environment" / "bin" / "python", MAIN, "--version"],
        cwd=tmp_path, env=alone(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode
    assert "No module named mission9" in (done.stdout + done.stderr).replace("'", "")


def test_the_wheel_says_which_version_it_is(wheel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from mission9.cli import program; program()", "--version"],
        env=alone(PYTHONPATH=str(wheel)), cwd=wheel.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == importlib.metadata.version("mission9")
