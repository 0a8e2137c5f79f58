"""The choice of GPU and threads, in simulated environments: the number of GPUs and Spark's task are not real."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import loky
import pytest
import torch
from pyspark.resource import ResourceInformation

from mission9 import devices
from mission9.config import RunConfig
from mission9.errors import SetupError


@dataclass
class Task:
    """The part of pyspark's TaskContext that is used."""

    partition: int = 0
    cores: int = 1
    gpu: str | None = None

    def partitionId(self) -> int:  # noqa: N802
        return self.partition

    def cpus(self) -> int:
        return self.cores

    def resources(self) -> dict[str, ResourceInformation]:
        return {} if self.gpu is None else {"gpu": ResourceInformation("gpu", [self.gpu])}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Four GPUs, 16 cores, a fresh process, no Spark."""
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", devices.WORKERS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(loky, "cpu_count", lambda: 16)
    monkeypatch.setattr(devices, "_spark_task", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # of the claims
    devices._claimed.cache_clear()
    yield
    devices._claimed.cache_clear()


def in_task(monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    monkeypatch.setattr(devices, "_spark_task", lambda: task)


def test_one_process_takes_the_first() -> None:
    assert devices.cuda_index() == 0


def test_processes_share_the_gpus_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for process in range(6):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        taken.append(devices.cuda_index())
        assert devices.cuda_index() == taken[-1]  # later tasks stay there
    assert taken == [0, 1, 2, 3, 0, 1]


def test_tasks_of_one_executor_take_different_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for process, partition in enumerate((0, 4, 8)):  # Spark numbers tasks, not workers
        in_task(monkeypatch, Task(partition=partition))
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        assert devices.cuda_index() == process


def test_a_process_that_ended_claims_none(tmp_path: Path) -> None:
    claim = "from mission9 import devices; import os; print(devices._claimed((0, 1), os.getpid()))"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", claim], env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, check=True
        )
        assert done.stdout == b"0\n"


def test_gpus_are_known_by_the_machines_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for process, (visible, index) in enumerate([("0,1", 0), ("1,2", 0), ("0,2", 1), ("GPU-a,GPU-b", 0)]):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        assert devices.cuda_index() == index


def test_a_link_is_no_folder_for_claims(tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (tmp_path / f"mission9-gpus-{os.getuid()}").symlink_to(others)
    assert [devices._claimed((0, 1, 2), process) for process in (30, 31, 32)] == [0, 1, 2]
    assert list(others.iterdir()) == []


def test_the_workers_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.WORKERS_VARIABLE, "1")
    RunConfig()


@pytest.mark.parametrize(
    ("address", "cuda_visible", "index"),
    [
        ("2", None, 2),
        ("2", "0,1,2,3", 2),
        ("2", "3,2,1,0", 1),
        ("6", "4,5,6,7", 2),
        ("GPU-b", "GPU-a,GPU-b", 1),
        (" 3", "", 3),
        ("1", "GPU-a,GPU-b,GPU-c,GPU-d", 1),
    ],
)
def test_what_spark_assigned_comes_first(
    monkeypatch: pytest.MonkeyPatch, address: str, cuda_visible: str | None, index: int
) -> None:
    if cuda_visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cuda_visible)
    in_task(monkeypatch, Task(partition=3, gpu=address))
    assert devices.cuda_index() == index


def test_a_workers_next_task_may_be_given_another_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (1, 3):
        in_task(monkeypatch, Task(gpu=str(address)))
        assert devices.cuda_index() == address


@pytest.mark.parametrize("address", ["5", "GPU-8d7e"])
def test_an_address_that_torch_does_not_count_is_left(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # isolated: the one GPU is number 0 now
    in_task(monkeypatch, Task(partition=5, gpu=address))
    assert devices.cuda_index() == 0


@pytest.mark.parametrize(("listed", "index"), [("all", 1), ("2,3", 3), ("2, 0", 0), ("GPU-a,GPU-b", 1), ("4,5", 1)])
def test_the_visible_ones_are_shared(monkeypatch: pytest.MonkeyPatch, listed: str, index: int) -> None:
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", listed)
    for process, found in ((1, None), (2, index)):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        assert devices.cuda_index() == found or found is None


def test_no_gpu_on_a_worker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "none")
    with pytest.raises(SetupError, match="there is no GPU on .*: NVIDIA_VISIBLE_DEVICES hides every GPU"):
        devices.cuda_index()


def test_cores_are_shared_among_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.decode_threads() == 4
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "1")
    assert devices.decode_threads() == 16
    in_task(monkeypatch, Task(cores=1, gpu="1"))
    assert devices.decode_threads() == 16
    in_task(monkeypatch, Task(cores=6))
    assert devices.decode_threads() == 6


def test_workers_that_share_a_gpu_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.WORKERS_VARIABLE, "2")
    assert devices.decode_threads() == 4  # each of the four GPUs may get a process
    monkeypatch.setenv(devices.WORKERS_VARIABLE, "8")
    assert devices.decode_threads() == 2
    in_task(monkeypatch, Task(cores=1))  # Spark runs one such task a core, and schedules no GPUs
    assert devices.decode_threads() == 2


def test_a_quota_counts_as_cores_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loky, "cpu_count", lambda: 8)  # a container's quota, on 16 cores
    assert devices.decode_threads() == 2


@pytest.mark.parametrize("gpus", [0, 4])
def test_two_threads_decode_on_the_smallest_machine(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(loky, "cpu_count", lambda: 1)
    assert devices.decode_threads() == 2
