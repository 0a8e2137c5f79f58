"""Runners that start, and end, while their user is busy with something else."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from mission9.config import RunConfig
from mission9.runners.base import InProcessRunner, Runner, Task
from mission9.runners.factory import open_runner
from mission9.runners.keyed import KeyedRunner


class BackgroundRunner:
    """The runner that `config` asks for, or the one `given`, which is neither started nor ended here.

    It starts and ends in a thread of its own; leaving the context ends it, whatever it was about to do.
    """

    def __init__(self, config: RunConfig, given: Runner | None = None) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="runner")
        self._stack = ExitStack()
        self._given = given
        self._starting: Future[Runner] | None = None
        self._warming: Future[object] | None = None

    def begin(self) -> Future[Runner]:
        """Start it, for somebody who will ask for it soon."""
        if self._starting is None:
            self._starting = self._thread.submit(self._start)
        return self._starting

    def warm_up(self, task: Task) -> None:
        """Have a task run for each worker, if the runner was told to begin, before it is asked for."""
        if self._starting is not None:
            self._warming = self._thread.submit(self._map, self._starting, task)

    def get(self) -> Runner:
        """The runner, as soon as it is ready.

        Raises:
            SetupError: it cannot be had here.
        """
        runner = self._given or self.begin().result()
        if self._warming is not None:
            self._warming.result()
        return runner

    def end(self) -> None:
        """Begin to end it: its work is done."""
        self._thread.submit(self._stack.close)

    def _start(self) -> Runner:
        return self._stack.enter_context(open_runner(self._config))

    def _map(self, starting: Future[Runner], task: Task) -> None:
        runner = starting.result()
        runner.map(task, runner.parallelism)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self._thread.submit(self._stack.__exit__, kind, error, trace)
        self._thread.shutdown(wait=True)
        ended.result()


class Runners:
    """The runners of a run: `now` is the one of its present stage; leaving the context ends all.

    Where one is `given`, the settings' is not started; small tables may be made by worker processes of this machine.
    """

    def __init__(self, config: RunConfig, given: Runner | None = None) -> None:
        self._given, self._key = given, config.encrypt_key
        self._asked_for = BackgroundRunner(config, given)
        self._here = BackgroundRunner(config.model_copy(update={"runner": "local", "master": None}))
        self.now: Runner = InProcessRunner()

    def begin(self) -> None:
        """Start the one that the settings ask for: it will be needed."""
        if self._given is None:
            self._asked_for.begin()

    def warm_up(self, task: Task) -> None:
        """Have a task run for each of its workers, if it has begun to start."""
        self._asked_for.warm_up(task)

    def start(self, *, is_needed: bool) -> None:
        """Have that one work, or this process where there is little to do.

        Raises:
            SetupError: it cannot be had here.
        """
        chosen = self._asked_for.get() if is_needed else self._given or InProcessRunner()
        self.now = KeyedRunner(chosen, self._key) if self._key else chosen

    def switch_to_local(self, *, is_little: bool, is_all_here: bool) -> None:
        """Have this process work where there is little to do, or this machine's workers where all of it is here."""
        if not (is_little or is_all_here):
            return
        self._asked_for.end()
        self.now = InProcessRunner() if is_little else self._here.get()

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(self._asked_for)
        self._stack.enter_context(self._here)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
