"""The image files that an erasure deletes."""

from __future__ import annotations

import os

from mission9.errors import ConfigError
from mission9.sources import open_source, resolve_root
from mission9.sources.deletion import DeletableImages


def deletable_source(given: str | None, of_run: str) -> DeletableImages:
    """The images at `given`, else in the folder `of_run` that the run read, if its path is absolute.

    A result is untrusted: nothing is deleted in a bucket that only the result names.

    Raises:
        ConfigError: there is no source, or it is a pack or a store without deletion of single images.
    """
    if not (given or of_run):
        raise ConfigError("no result records the location of its images: pass --input")
    if not given and ("***" in of_run or not os.path.isabs(of_run)):
        raise ConfigError(f"only the result says that its images are in {of_run}: confirm the deletion with --input")
    return open_source(resolve_root(given or of_run)).deletable()
