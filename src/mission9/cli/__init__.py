"""The command line."""

from mission9.cli.app import app
from mission9.cli.entry import main, program, task

__all__ = ["app", "main", "program", "task"]
