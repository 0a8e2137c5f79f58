"""Runners that start and end in the background."""

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
    """The runner that `config` selects, or the one `given`, which is neither started nor ended here.

    It starts and ends in its own thread; leaving the context ends it, even while it starts.
    """

    def __init__(self, config: RunConfig, given: Runner | None = None) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="runner")
        self._stack = ExitStack()
        self._given = given
        self._starting: Future[Runner] | None = None
        self._warming: Future[object] | None = None

    def begin(self) -> Future[Runner]:
        """Start the runner in the background, before it is needed."""
        if self._starting is None:
            self._starting = self._thread.submit(self._start)
        return self._starting

    def warm_up(self, task: Task) -> None:
        """Run a task for each worker before the runner is needed, if it has begun to start."""
        if self._starting is not None:
            self._warming = self._thread.submit(self._map, self._starting, task)

    def get(self) -> Runner:
        """Wait for the runner, and return it.

        Raises:
            SetupError: it is not available here.
        """
        runner = self._given or self.begin().result()
        if self._warming is not None:
            self._warming.result()
        return runner

    def end(self) -> None:
        """Begin to end the runner, which is no longer needed."""
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
    """The runners of a run: `now` is that of the current stage; leaving the context ends all.

    With a `given` runner, the configured one is not started; small tables may use worker processes of this machine.
    """

    def __init__(self, config: RunConfig, given: Runner | None = None) -> None:
        self._given, self._key = given, config.encrypt_key
        self._asked_for = BackgroundRunner(config, given)
        self._here = BackgroundRunner(config.model_copy(update={"runner": "local", "master": None}))
        self.now: Runner = InProcessRunner()

    def begin(self) -> None:
        """Start the configured runner in the background, before it is needed."""
        if self._given is None:
            self._asked_for.begin()

    def warm_up(self, task: Task) -> None:
        """Run a task for each worker of the configured runner, if it has begun to start."""
        self._asked_for.warm_up(task)

    def start(self, *, is_needed: bool) -> None:
        """Switch to the configured runner, or to this process if there is little work.

        Raises:
            SetupError: it is not available here.
        """
        chosen = self._asked_for.get() if is_needed else self._given or InProcessRunner()
        self.now = KeyedRunner(chosen, self._key) if self._key else chosen

    def switch_to_local(self, *, is_little: bool, is_all_here: bool) -> None:
        """Switch to this process if there is little work, or to workers on this machine if all data is here."""
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
