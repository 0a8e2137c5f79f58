"""Tasks in worker processes of this machine, without Spark or Java."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import cloudpickle
import loky

from mission9.concurrency.watchdog import PATIENCE, Patience, look_after, watched
from mission9.devices import WORKERS_VARIABLE
from mission9.errors import SetupError, StorageError, TaskError
from mission9.runners.base import Task, carry_out
from mission9.runners.environment import WORKERS, defer_pandas, safe_path
from mission9.storage.local.errors import describe_error
from mission9.system import SHARED_MEMORY, why_no_shared_memory

# A file with a task, and a name that no other task has, since the system reuses file identities.
Place = tuple[str, str]

_ATTEMPTS = 4  # the same number as Spark's


class LocalRunner:
    """Runs tasks on `workers` processes of one thread each, which are kept for the next stage.

    Processes that die, hang or are stopped are replaced, and their tasks are retried.
    """

    def __init__(self, workers: int, *, patience: Patience = PATIENCE) -> None:
        self.parallelism = workers
        self._patience = patience
        self._pool: loky.ProcessPoolExecutor | None = None

    def map(self, task: Task, count: int) -> list[bytes]:
        results: dict[int, bytes] = {}
        failure: BaseException | None = None
        with _shared(cloudpickle.dumps(task)) as place:
            attempts = 0
            while attempts < _ATTEMPTS:
                before = len(results)
                failure = self._try(place, set(range(count)) - results.keys(), results)
                if failure is None:
                    return [results[number] for number in range(count)]
                if isinstance(failure, StorageError):  # a retry would fail in the same way
                    raise failure
                # Over hours many workers may die, as long as the run makes progress.
                attempts = 1 if len(results) > before else attempts + 1
                if isinstance(failure, BrokenProcessPool):
                    self._end(map_concurrent=True)
        raise TaskError(f"a task failed: {_describe_failure(failure)}") from failure

    def _try(self, place: Place, numbers: set[int], results: dict[int, bytes]) -> BaseException | None:
        """Run the tasks of `numbers` once each; add their results, and return the first exception.

        A failure of a disk ends the round.
        """
        self._pool = self._pool or self._new_pool()
        try:
            with safe_path():  # loky also starts processes that track shared memory
                futures: dict[int, Future[bytes]] = {
                    n: self._pool.submit(_run, place, n, self._patience) for n in sorted(numbers)
                }
        except BrokenProcessPool as broken:  # a process died while it was idle
            return broken
        for future in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
            if isinstance(future.exception(), StorageError):
                return future.exception()
        wait(futures.values())
        failures = {number: future.exception() for number, future in futures.items()}
        results.update({n: future.result() for n, future in futures.items() if failures[n] is None})
        return next((failure for failure in failures.values() if failure is not None), None)

    def _new_pool(self) -> loky.ProcessPoolExecutor:
        # Workers grow with their images, and loky replaces those that have grown, or ended.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"loky\.process_executor")
        beginning = (os.getpid(), self.parallelism, self._patience)
        try:
            return loky.ProcessPoolExecutor(self.parallelism, env=WORKERS, initializer=_begin, initargs=beginning)
        except OSError as error:
            if why := why_no_shared_memory():
                raise SetupError(f"worker processes share memory in {SHARED_MEMORY}: {why}") from error
            raise

    def _end(self, *, map_concurrent: bool) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=map_concurrent)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(map_concurrent=error is not None)


@contextmanager
def _shared(task: bytes) -> Iterator[Place]:
    """Put a task into shared memory, where workers load it: it may hold the network's weights, so it is sent once."""
    with os.fdopen(os.memfd_create("mission9-task"), "wb") as file:
        file.write(task)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}", uuid.uuid4().hex


def _describe_failure(error: BaseException | None) -> str:
    if isinstance(error, BrokenProcessPool):
        return f"worker processes died {_ATTEMPTS} times, perhaps for lack of memory ({str(error).splitlines()[0]})"
    return describe_error(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def _begin(run: int, workers: int, patience: Patience) -> None:
    # Ctrl-C reaches every process of the terminal; the parent ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ[WORKERS_VARIABLE] = str(workers)
    defer_pandas()
    look_after(os.getpid(), patience.stop)
    threading.Thread(target=_end_with, args=(run,), daemon=True).start()


def _end_with(run: int) -> None:
    """End this process, even within a task, when its parent is killed."""
    while os.getppid() == run:
        time.sleep(1)
    os._exit(1)


def _run(place: Place, number: int, patience: Patience) -> bytes:
    with watched(patience):
        return carry_out(_load(place), number)


@lru_cache(maxsize=1)
def _load(place: Place) -> Task:
    task: Task = cloudpickle.loads(Path(place[0]).read_bytes())
    return task
