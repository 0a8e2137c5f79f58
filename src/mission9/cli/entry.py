"""A command line -> its command -> an exit code."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import CycloptsError

from mission9.cli import deploy, estimate, make, protect, usage, use  # noqa: F401 (the commands)
from mission9.cli.app import app
from mission9.cli.console import fail, set_up_logging, take_any_text
from mission9.errors import Mission9Error
from mission9.runners.environment import SAFE_PATH, defer_pandas
from mission9.storage.local.errors import describe_error

# What shells expect of a program that Ctrl-C ended, or a signal to terminate.
INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """A signal to terminate; handled like Ctrl-C, with another exit code."""


def program() -> NoReturn:
    """Run this process's command line as the program `mission9`, and exit."""
    os.environ.update(SAFE_PATH)
    _set_home()
    _take_names_as_utf8()
    defer_pandas()
    signal.signal(signal.SIGTERM, _terminate)
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):  # how it ended is settled; Python's own end takes a moment
        signal.signal(number, signal.SIG_IGN)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Exit without finalizing the interpreter.

    Arrow's threads may still hold a Python file. One that needs the interpreter during finalization aborts the process,
    or blocks it forever (https://github.com/apache/arrow/issues/34314).
    """
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # whoever read the output is gone, or the disk is full
        code = code or 1
    os._exit(code)


def task() -> None:
    """Carry out this process's command line as a task of Databricks, which treats any `SystemExit` as a failure."""
    if code := main():
        sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 2 usage, 3 too many rejects, 1 anything else."""
    take_any_text()
    set_up_logging()
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return fail(usage.describe_error(error), 2)
    except Mission9Error as error:
        return fail(str(error), error.exit_code)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of a command that is no run; a run has told it
        return fail(describe_error(error), 1)
    except KeyboardInterrupt as error:
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        return fail("interrupted; rerun the same command to resume", code)
    return code if isinstance(code, int) else 0


def _set_home() -> None:
    """Set the home of a user without a passwd entry to /, as container runtimes do."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/"


def _take_names_as_utf8() -> None:
    """Restart in Python's UTF-8 mode if it is off and the locale's encoding is ASCII or Latin-1.

    Folders of labels are named in UTF-8, as readers of tables expect, and workers inherit the mode.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        # The option as well, since Python may have been told to ignore the environment.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001 - as signals call
    raise Terminated
