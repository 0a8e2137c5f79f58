"""Show the progress of a run: a bar on a terminal, elsewhere a line of the log every few seconds."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from mission9.concurrency.background import background_thread
from mission9.output.shards import Shard
from mission9.storage.local.untrusted import read_json

logger = logging.getLogger(__name__)

LINE_EVERY = 10.0  # seconds between lines without a terminal
_LOOK_EVERY = 0.5  # seconds between looks at the committed shards


class Outcomes(NamedTuple):
    """The number of images done, and the number of rejected ones among them."""

    images: int
    rejected: int


class ShardWatch:
    """Counts of a plan's committed images, from the markers of its shards; works with every runner."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder = folder
        self._left = {f"{shard.key}.json" for shard in shards}
        self._done = Outcomes(0, 0)

    def look(self) -> Outcomes:
        """The sum over all markers so far; each is read once."""
        try:
            there = self._left.intersection(os.listdir(self._folder))
        except OSError:  # the writer of the folder reports it
            return self._done
        for name in there:
            try:
                marker = read_json(self._folder / name)
                features, rejects = marker["features"]["rows"], marker["rejects"]["rows"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # no progress; the next reader of the marker reports it
            self._left.remove(name)
            self._done = Outcomes(self._done.images + features + rejects, self._done.rejected + rejects)
        return self._done


class Display:
    """The display of a run on `console`: on a terminal, the current stage, with a bar if it counts images."""

    def __init__(self, console: Console | None = None) -> None:
        self._bar = _bar(console) if console is not None and console.is_terminal else None
        self._is_counting = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a stage as running."""
        if self._bar is None:
            with background_thread(partial(self._log_time, name)):
                yield
            return
        with self._bar as bar:
            task = bar.add_task(name, total=None, text="")
            try:
                yield
            finally:
                bar.remove_task(task)

    @contextmanager
    def counting(self, total: int, look: Callable[[], Outcomes]) -> Iterator[None]:
        """Show, within a stage, the number of images done out of `total`."""
        follow = self._follow_on_bar if self._bar is not None else _follow_in_lines
        self._is_counting = True
        try:
            with background_thread(partial(follow, total, look)):
                yield
        finally:
            self._is_counting = False

    def _log_time(self, stage: str, ended: threading.Event) -> None:
        """Log every `LINE_EVERY` seconds that a stage is still running, unless it counts images."""
        start = time.monotonic()
        while not ended.wait(LINE_EVERY):
            if not self._is_counting:
                logger.info("%s: at work for %s", stage, _duration(time.monotonic() - start))

    def _follow_on_bar(self, total: int, look: Callable[[], Outcomes], ended: threading.Event) -> None:
        assert self._bar is not None  # noqa: S101 (for mypy)
        task = self._bar.task_ids[-1]
        start = time.monotonic()
        is_last = False
        while not is_last:
            is_last = ended.wait(_LOOK_EVERY)
            done = look()
            text = _progress_text(done, total, time.monotonic() - start)
            self._bar.update(task, total=total, completed=done.images, text=text, refresh=True)


def _bar(console: Console) -> Progress:
    text = TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), BarColumn(None), text)
    return Progress(*columns, console=console, transient=True, expand=True)


def _follow_in_lines(total: int, look: Callable[[], Outcomes], ended: threading.Event) -> None:
    start = time.monotonic()
    while not ended.wait(LINE_EVERY):
        logger.info("extract: %s", _progress_text(look(), total, time.monotonic() - start))


def _progress_text(done: Outcomes, total: int, seconds: float) -> str:
    rate = done.images / max(seconds, 1e-3)
    left = f", {_duration((total - done.images) / rate)} left" if rate else ""
    return f"{done.images:,} of {total:,} images, {done.rejected:,} rejected, {rate:,.0f} images/s{left}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
