"""Checks on the place of a pack, and its write lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mission9.errors import OutputError
from mission9.output.layout import REPORT, SHARDS
from mission9.sources.pack.layout import (
    DONE,
    IMAGES,
    INDEX,
    LOCK,
    MANIFEST,
    PARTIAL_NAME,
    PLAN_FILE,
    REJECTS,
    STATE,
)
from mission9.storage.file_store import CheckLock, FileStore

# The names that identify a pack, finished or not, and a result of a run, whose tables a pack would replace. Neither
# includes the lock of runs: a run that was refused here has left it in a pack, too.
_OF_PACKS = {MANIFEST, PLAN_FILE, LOCK, DONE}
_OF_RESULTS = {REPORT, f"{STATE}/{SHARDS}"}


@contextmanager
def locked(store: FileStore) -> Iterator[CheckLock]:
    """Lock a place against other writers, and delete the partial files of killed calls.

    Raises:
        OutputError: another process is writing to it, or it is not a valid place of a pack.
    """
    store.check()
    _check_is_pack({*store.names(""), *(f"{STATE}/{name}" for name in store.names(STATE))}, str(store))
    with store.lock(LOCK) as check:
        store.sweep(("", IMAGES, INDEX, REJECTS, STATE, DONE), PARTIAL_NAME)
        yield check


def _check_is_pack(names: set[str], place: str) -> None:
    """Refuse a place with foreign files, or with the result of a run.

    Raises:
        OutputError: the place holds something other than a pack.
    """
    if names & _OF_RESULTS:
        raise OutputError(f"the output {place} holds the results of a run, not a pack: pass another --output")
    if names - {STATE} and not names & _OF_PACKS:
        raise OutputError(f"the output {place} holds {min(names - {STATE})}, not a pack: pass another --output")
