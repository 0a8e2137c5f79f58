"""The place of a pack: what may be there, and who may write it."""

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

# By the one a pack is known, finished or not; by the other a result of a run, whose tables a pack would replace. The
# lock of runs is in neither: one that was refused here has left it in a pack, too.
_OF_PACKS = {MANIFEST, PLAN_FILE, LOCK, DONE}
_OF_RESULTS = {REPORT, f"{STATE}/{SHARDS}"}


@contextmanager
def locked(store: FileStore) -> Iterator[CheckLock]:
    """Keep others from packing into a place, and clear away what calls that were killed had begun there.

    Raises:
        OutputError: another is writing it, or it holds, or can hold, what is no pack.
    """
    store.check()
    _check_is_pack({*store.names(""), *(f"{STATE}/{name}" for name in store.names(STATE))}, str(store))
    with store.lock(LOCK) as check:
        store.sweep(("", IMAGES, INDEX, REJECTS, STATE, DONE), PARTIAL_NAME)
        yield check


def _check_is_pack(names: set[str], place: str) -> None:
    """Refuse a place that holds files of others, or the result of a run.

    Raises:
        OutputError: saying which.
    """
    if names & _OF_RESULTS:
        raise OutputError(f"the output {place} holds the results of a run, and no pack: give another --output")
    if names - {STATE} and not names & _OF_PACKS:
        raise OutputError(f"the output {place} holds {min(names - {STATE})}, which is no pack: give another --output")
