"""The choice of GPU and threads, in simulated environments: the number of GPUs and Spark's task are not real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

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
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four GPUs, 16 cores, a fresh process, no Spark."""
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", devices.WORKER_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(devices, "_spark_task", lambda: None)
    devices._worker_number.cache_clear()
    yield
    devices._worker_number.cache_clear()


def in_task(monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    monkeypatch.setattr(devices, "_spark_task", lambda: task)


def test_one_process_takes_the_first() -> None:
    assert devices.cuda_index() == 0


@pytest.mark.parametrize(("worker", "index"), [("0", 0), ("3", 3), ("4", 0), ("9", 1)])
def test_workers_without_spark_share_by_their_number(monkeypatch: pytest.MonkeyPatch, worker: str, index: int) -> None:
    monkeypatch.setenv(devices.WORKER_VARIABLE, worker)
    assert devices.cuda_index() == index


def test_the_workers_number_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.WORKER_VARIABLE, "1")
    RunConfig()


def test_tasks_share_by_partition_and_a_worker_keeps_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    in_task(monkeypatch, Task(partition=6))
    assert devices.cuda_index() == 2
    in_task(monkeypatch, Task(partition=7))
    assert devices.cuda_index() == 2
    monkeypatch.setattr(os, "getpid", lambda: -1)  # another process, forked of this one
    assert devices.cuda_index() == 3


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
    monkeypatch.setenv(devices.WORKER_VARIABLE, "3")
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
    in_task(monkeypatch, Task(partition=1))
    assert devices.cuda_index() == index


def test_no_gpu_on_a_worker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "none")
    with pytest.raises(SetupError, match="there is no GPU on .*: NVIDIA_VISIBLE_DEVICES hides every GPU"):
        devices.cuda_index()


def test_cores_are_shared_among_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.decode_threads() == 4
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "1")
    assert devices.decode_threads() == 16
    in_task(monkeypatch, Task(cores=1))
    assert devices.decode_threads() == 16
    in_task(monkeypatch, Task(cores=6))
    assert devices.decode_threads() == 6


@pytest.mark.parametrize("gpus", [0, 4])
def test_two_threads_decode_on_the_smallest_machine(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert devices.decode_threads() == 2
