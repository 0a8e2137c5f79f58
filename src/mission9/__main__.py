"""`python -m mission9`."""

import os
import sys

if sys.path[0] == os.getcwd():
    del sys.path[0]  # the current folder, which may be a dataset that somebody else made

from mission9.cli import program

program()
