"""`python -m mission9`."""

from mission9.cli import program

program()
