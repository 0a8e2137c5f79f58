"""GPUs are found by nvidia-smi, here one that is made up, and Spark hands them to tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.cluster import Cluster

SCRIPT = REPOSITORY / "src/mission9/deploy/files/discover-gpus.sh"


def programs(folder: Path, says: str | None, code: int = 0) -> str:
    """A PATH of one folder, in which nvidia-smi answers the one question that it is asked; or there is none."""
    folder.mkdir()
    if says is not None:
        question = "--query-gpu=index --format=csv,noheader"
        program = folder / "nvidia-smi"
        program.write_text(f'#!/bin/sh\n[ "$*" = "{question}" ] || exit 9\nprintf "{says}"\nexit {code}\n')
        program.chmod(0o755)
    return str(folder)


def discover(path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT], env={"PATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("says", "addresses"),
    [("0\\n", ["0"]), ("0\\n1\\n2\\n10\\n", ["0", "1", "2", "10"]), ("", []), (None, [])],
    ids=["one", "four", "none", "no driver"],
)
def test_gpus_are_told_as_spark_wants_them(says: str | None, addresses: list[str], tmp_path: Path) -> None:
    done = discover(programs(tmp_path / "bin", says))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"name": "gpu", "addresses": addresses}


@pytest.mark.parametrize(("says", "code"), [("0\\n", 15), ("No devices were found\\n", 0)], ids=["fails", "words"])
def test_what_is_no_list_of_gpus_is_an_error(says: str, code: int, tmp_path: Path) -> None:
    done = discover(programs(tmp_path / "bin", says, code))
    assert done.returncode != 0
    assert "addresses" not in done.stdout


# What a task sees; torch's number of GPUs is made up as nvidia-smi is, since there are none.
LOOK = """
import pyarrow as pa
from pyspark.sql import SparkSession

def look(batches):
    import os, time, torch
    from pyspark import TaskContext
    from mission9 import devices
    torch.cuda.device_count = lambda: 2
    for _ in batches:
        os.mkdir(f"{os.environ['MEETING']}/{TaskContext.get().partitionId()}")
        while len(os.listdir(os.environ["MEETING"])) < 2:  # both tasks run, side by side
            time.sleep(0.05)
        address = TaskContext.get().resources()["gpu"].addresses[0]
        yield pa.record_batch([pa.array([f"{address} {devices.cuda_index()}"])], ["seen"])

spark = SparkSession.builder.getOrCreate()
rows = spark.range(0, 2, 1, 2).mapInArrow(look, "seen string").collect()
print("seen:", sorted(row.seen for row in rows))
"""


@pytest.mark.spark
@pytest.mark.slow
def test_tasks_on_a_cluster_see_the_gpu_that_spark_gave_them(tmp_path: Path) -> None:
    import pyspark

    path = programs(tmp_path / "bin", "0\\n1\\n") + os.pathsep + os.environ["PATH"]
    settings = f"-Dspark.worker.resource.gpu.amount=2 -Dspark.worker.resource.gpu.discoveryScript={SCRIPT}"
    (tmp_path / "look.py").write_text(LOOK)
    home = Path(pyspark.__file__).parent
    facts = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    (tmp_path / "meeting").mkdir()
    of_workers = {"PATH": path, "SPARK_WORKER_OPTS": settings, "MEETING": str(tmp_path / "meeting")}
    with Cluster(tmp_path / "cluster", of_workers, cores=2) as cluster:
        command = [str(home / "bin/spark-submit"), "--master", cluster.master, "--executor-memory", "1g"]
        for name, value in {"executor.resource": 2, "task.resource": 1, "executor.cores": 2}.items():
            command += ["--conf", f"spark.{name}{'' if 'cores' in name else '.gpu.amount'}={value}"]
        command += ["--conf", "spark.cores.max=2", str(tmp_path / "look.py")]
        done = subprocess.run(command, env=os.environ | facts, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "seen: ['0 0', '1 1']" in done.stdout
