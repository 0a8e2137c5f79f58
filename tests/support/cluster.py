"""A standalone Spark cluster on the loopback: a master, and worker processes of a core or more each."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from mission9.runners.java import java_options

REPOSITORY = Path(__file__).resolve().parents[2]

# What a command needs beside the master's address: the workers have a gigabyte each.
MEMORY = {"SPARK_DRIVER_MEMORY": "1g", "SPARK_EXECUTOR_MEMORY": "1g"}
_DEPLOY = "org.apache.spark.deploy"

# For all JVMs here: compiled less, and with one thread for garbage, they start in half of the CPU time.
FAST_START = " ".join(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *java_options()])

_FIRST_PORT = 10_000  # below are those of well-known servers


class Cluster:
    """The master of two workers; logs and the workers' files lie in `folder`.

    `environment` is the workers', beside this process's.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, *, cores: int = 1) -> None:
        self._folder = folder
        self._environment, self._cores = environment or {}, cores
        self._port, self._web = free_port(), free_port()
        self.master = f"spark://127.0.0.1:{self._port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._started = 0

    @property
    def pids(self) -> list[int]:
        """The processes of master and workers; executors are the children of the latter."""
        return [process.pid for process in self._processes]

    def __enter__(self) -> Self:
        port, web = str(self._port), str(self._web)
        try:
            self._start("master.Master", "127.0.0.1", "--port", port, "--webui-port", web)
            self._wait_for(0)  # a worker that comes before its master tries again only five to fifteen seconds later
            self.mend()
        except BaseException:
            self._end()
            raise
        return self

    def mend(self, workers: int = 2) -> None:
        """Start as many workers as are missing, and wait until the master knows of all that there are."""
        self._processes = [process for process in self._processes if process.poll() is None]
        for _ in range(workers - len(self._processes) + 1):
            self._started += 1
            work = str(self._folder / f"worker{self._started}")
            facts = ["--cores", str(self._cores), "--memory", "1g", "--webui-port", "0", "--work-dir", work]
            # Of different names, or Spark would not start the copy of a slow task on the other.
            self._start("worker.Worker", f"127.0.0.{1 + self._started % 250}", *facts, self.master)
        self._wait_for(workers)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait()

    def _start(self, program: str, host: str, *arguments: str) -> None:
        import pyspark

        home = Path(pyspark.__file__).parent
        quiet = f"-Dlog4j2.configurationFile=file:{REPOSITORY / 'src/mission9/data/log4j2.properties'}"
        facts = {
            "SPARK_LOCAL_IP": host,
            "SPARK_HOME": str(home),
            "SPARK_DAEMON_JAVA_OPTS": quiet,
            "JDK_JAVA_OPTIONS": FAST_START,  # which executors inherit
            **self._environment,
        }
        command = [str(home / "bin" / "spark-class"), f"{_DEPLOY}.{program}", "--host", host, *arguments]
        self._processes.append(subprocess.Popen(command, env=os.environ | facts))

    def _wait_for(self, workers: int) -> None:
        url, deadline = f"http://127.0.0.1:{self._web}/json/", time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    if json.load(answer)["aliveworkers"] == workers:
                        return
            except (OSError, ValueError):  # it is not there yet, or has nothing to say
                pass
            time.sleep(0.2)
        raise TimeoutError(f"{url} does not show {workers} workers")


@contextlib.contextmanager
def connect_server(folder: Path) -> Iterator[str]:
    """A Spark Connect server of two cores, whose logs and files lie in `folder`; its address."""
    import pyspark

    port, home = free_port(), Path(pyspark.__file__).parent
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.ui.enabled": "false",
    }
    command = [str(home / "bin" / "spark-submit"), "--master", "local[2]", "--driver-memory", "1g"]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    facts = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(REPOSITORY / "src"),
        "JDK_JAVA_OPTIONS": FAST_START,
    }
    with (
        (folder / "server.log").open("w") as told,
        subprocess.Popen(
            [*command, "spark-internal"], env=os.environ | facts, cwd=folder, stdout=told, stderr=told
        ) as process,
    ):
        try:
            _wait_for_port(port, process)
            yield f"sc://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"nobody listens on port {port}")


def free_port() -> int:
    """A port that nobody listens on; if possible one that nobody is given who asks the system for any."""
    given_to_any = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ours = range(_FIRST_PORT, max(_FIRST_PORT, given_to_any))
    for port in [*random.sample(ours, min(len(ours), 100)), 0]:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise RuntimeError("no port is free")
