"""Print results on standard output and messages on standard error, each on one line."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

from rich.console import Console

from mission9.redact import shown

console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def set_up_logging() -> None:
    """Show the library's log messages, and warnings of other packages."""
    handler = _ConsoleHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    # py4j writes to the root logger, and at length, that Spark went away when Ctrl-C told it to.
    handler.addFilter(lambda record: record.name != "root")
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("mission9").setLevel(logging.INFO)
    logging.getLogger("py4j").setLevel(logging.CRITICAL)


class _OneLine(logging.Formatter):
    """A formatter that keeps each message on one line, even if a file name contains line breaks."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return shown(super().formatMessage(record))


class _ConsoleHandler(logging.Handler):
    """A handler that prints lines above the progress bar, if any."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record), markup=False)


def fail(message: str, code: int) -> int:
    """Print why a command fails, and return its exit code."""
    console.print(f"mission9: {shown(message)}", markup=False)
    return code


def take_any_text() -> None:
    """Escape characters that the output's encoding lacks, so that no command fails on its messages."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def say_json(found: Any) -> None:
    """Print a line of JSON; characters that the output's encoding lacks are escaped."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(found, ensure_ascii=not is_unicode), flush=True)


def say(text: str) -> None:
    """Print a line of a result."""
    print(shown(text), flush=True)
