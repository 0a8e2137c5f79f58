"""Describe a mistake in a command line in one line."""

from __future__ import annotations

import shlex
from functools import reduce

from cyclopts import CycloptsError
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError
from pydantic import ValidationError

from mission9.cli.app import app
from mission9.config import explain


def describe_error(error: CycloptsError) -> str:
    """Name the wrong argument, and the remedy."""
    if isinstance(error.__cause__, ValidationError):
        return explain(error.__cause__)
    command = " ".join((app.name[0], *(error.command_chain or ())))
    if isinstance(error, UnusedCliTokensError):
        return _too_many(command, error.unused_tokens or [])
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        needs = f"a value for {error.keyword}" if error.keyword else error.argument.name
        return f"{command} needs {needs} ({command} --help)"
    return str(error)


def _too_many(command: str, words: list[str]) -> str:
    """Name the arguments that the command does not accept; most often one is a folder without its option."""
    asked = reduce(lambda above, name: above[name], command.split()[1:], app)
    names = {name for argument in asked.assemble_argument_collection(parse_docstring=False) for name in argument.names}
    remedy = f"is it --input {shlex.quote(words[0])}? " if "--input" in names else ""
    return f"{command} has no place for {' '.join(map(shlex.quote, words))}: {remedy}({command} --help)"
