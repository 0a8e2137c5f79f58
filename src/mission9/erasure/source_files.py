"""The images that an erasure deletes."""

from __future__ import annotations

import os

from mission9.errors import ConfigError
from mission9.sources import open_source, resolve_root
from mission9.sources.deletion import DeletableImages


def deletable_source(given: str | None, of_run: str) -> DeletableImages:
    """The images at `given`, else in the folder `of_run` that the run read, if its path is absolute.

    Somebody else may have made the result: nothing is deleted in a bucket that it alone names.

    Raises:
        ConfigError: it is none, or they are in a pack or a store that single images are not deleted from.
    """
    if not (given or of_run):
        raise ConfigError("there is no result that says where its images are: give --input")
    if not given and ("***" in of_run or not os.path.isabs(of_run)):
        raise ConfigError(f"the result names {of_run}, where nothing is deleted unless you name it too: give --input")
    return open_source(resolve_root(given or of_run)).deletable()
