"""Shards in a bucket: committed by workers that access nothing else of the output, and downloaded to the mirror."""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mission9.concurrency.background import background_thread
from mission9.errors import Mission9Error
from mission9.output.layout import DONE
from mission9.output.shards import Shard, commit, damaged, features_file, read_marker, rejects_file
from mission9.storage.local.files import atomic_path, files_in
from mission9.storage.local.scratch import scratch_folder
from mission9.storage.local.untrusted import MIB
from mission9.storage.s3.address import Address
from mission9.storage.s3.listing import PAGE_KEYS, list_below
from mission9.storage.s3.objects import ObjectInfo, delete, fetch, get_or_none, map_concurrent, put
from mission9.storage.s3.range_reader import RangeReader
from mission9.storage.s3.raw_keys import is_odd

logger = logging.getLogger(__name__)

# Seconds between polls for newly committed shards, for each thousand objects, which take a request, and at most:
# hundreds of thousands would otherwise be listed without end.
_LOOK_EVERY, _LONGEST_WAIT = 1.0, 60.0
_MARKER = ".json"


@dataclass(frozen=True)
class SharedShards:
    """The bucket folder of one features table's shards, and the rows of its plan. Picklable, for the workers."""

    folder: Address
    todo: Address

    def rows(self, number: int) -> pa.Table:
        """The images of a row group.

        Raises:
            StorageError: the plan cannot be read.
        """
        footer = _footer(self.todo)
        with RangeReader(self.todo) as file, pq.ParquetFile(file, metadata=footer, pre_buffer=True) as plan:
            return plan.read_row_group(number)

    def holds(self, key: str) -> bool:
        """Return True if a shard is committed."""
        return get_or_none(self.folder / f"{key}{_MARKER}", MIB) is not None

    def commit(self, shard: Shard, features: pa.Table, rejects: pa.Table, mirror: Path) -> None:
        """Upload a shard's features, rejects, then the marker; copy them to the mirror if it exists on this machine.

        A table without rows may exist from a failed try: it is deleted before the marker is written.

        Raises:
            RuntimeError: rows are missing or too many.
            StorageError: the bucket cannot be written.
        """
        with scratch_folder() as scratch:
            commit(scratch, shard, features, rejects)
            files = sorted(files_in(scratch), key=lambda file: file.suffix == _MARKER)
            *tables, marker = files
            for file in tables:
                put(self.folder / file.name, file)
            delete(self.folder / name for name in _tables(shard.key).difference(file.name for file in tables))
            put(self.folder / marker.name, marker)
            with suppress(OSError):  # the driver then downloads it
                for file in files if mirror.is_dir() else ():
                    with atomic_path(mirror / file.name) as whole:
                        shutil.copyfile(file, whole)


@lru_cache(maxsize=4)
def _footer(todo: Address) -> pq.FileMetaData:
    """The footer of a plan, which locates its row groups, cached for large plans; the name differs for each run."""
    with RangeReader(todo) as file:
        return pq.read_metadata(file)


def _tables(key: str) -> set[str]:
    """The possible names of a shard's tables."""
    return {file(Path(), key).name for file in (features_file, rejects_file)}


def shared_name(name: str, run_id: str) -> str:
    """The name in a bucket of a file in a folder of shards.

    A result's plan is named after its run: two objects cannot be replaced at once, and the pointer names the current
    result.
    """
    return f"done-{run_id}.parquet" if name == DONE else name


def download(
    folder: Address,
    mirror: Path,
    *,
    only: Collection[str] | None = None,
    run_id: str = "",
    brought: set[ObjectInfo] | None = None,
) -> int:
    """Make a mirror hold the committed shards of a bucket, of the keys `only`; return how many objects the bucket has.

    Markers come last. Without `only`, shards that the bucket lacks are deleted from the mirror, and the last plan is
    downloaded too, as is that of the result `run_id`. Names in `brought` are skipped, and downloaded ones added to it.

    Raises:
        StorageError: the bucket cannot be read.
    """
    there = {folder.relative(found.key): found for page in list_below(folder) for found in page}
    count = len(there)
    there = {name: found for name, found in there.items() if _is_ours(name)}
    keys = {name.removesuffix(_MARKER) for name in there if name.endswith(_MARKER)}
    if only is None:
        if (done := there.get(shared_name(DONE, run_id))) is not None:
            there[DONE] = done
        plans = {name for name in there if name in ("images.parquet", DONE)}
        _remove_others(mirror, keys | {name.partition(".")[0] for name in plans})
    else:
        keys, plans = keys.intersection(only), set()
    wanted = [name for name in there if name.partition(".")[0] in keys or name in plans]
    brought = set() if brought is None else brought
    missing = [name for name in wanted if there[name] not in brought and not _is_here(mirror / name, there[name])]
    for group in (
        [name for name in missing if not name.endswith(_MARKER)],
        [name for name in missing if name.endswith(_MARKER)],
    ):
        map_concurrent(lambda name: fetch(Address(folder.bucket, there[name].key), mirror / name), group)
    broken = {key for key in {name.partition(".")[0] for name in missing} if not _is_whole(folder, mirror, key)}
    brought.update(there[name] for name in wanted if name.partition(".")[0] not in broken)
    return count


def _is_whole(folder: Address, mirror: Path, key: str) -> bool:
    """Return True if a downloaded shard matches its marker; damaged files are deleted."""
    files = damaged(mirror, key)
    for file in files:
        logger.warning("%s is damaged: its images are computed again", folder / file.name)
        file.unlink()
    return not files and read_marker(mirror, key) is not None


def _is_ours(name: str) -> bool:
    """Return True for a valid name of a shard's file: the folder is flat, so no name may contain a path."""
    return bool(name) and "/" not in name and not is_odd(name)


def _remove_others(mirror: Path, names: Collection[str]) -> None:
    for file in files_in(mirror):
        if file.name.partition(".")[0] not in names:
            file.unlink(missing_ok=True)


def _is_here(file: Path, found: ObjectInfo) -> bool:
    """Return True if a mirror holds an object; tables are compared by length, since markers record their content."""
    try:
        if file.stat().st_size != found.size:
            return False
        is_table = file.name.endswith((".features.parquet", ".rejects.parquet"))
        return is_table or hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() == found.etag.strip('"')
    except OSError:
        return False


@contextmanager
def incoming(folder: Address, mirror: Path, keys: Collection[str]) -> Iterator[None]:
    """Download shards to the mirror as workers commit them, and the rest when the context ends.

    Raises:
        StorageError: the bucket cannot be read.
    """
    # In a bucket encrypted with its own key, ETags say nothing about contents, so downloads are remembered.
    look = partial(download, folder, mirror, only=keys, brought=set())
    with background_thread(partial(_look_until, look)):
        yield
    look()


def _look_until(look: Callable[[], int], ended: threading.Event) -> None:
    wait = _LOOK_EVERY
    while not ended.wait(wait):
        try:
            wait = min(_LOOK_EVERY * (1 + look() // PAGE_KEYS), _LONGEST_WAIT)
        except (Mission9Error, OSError) as error:  # the last poll reports a lasting failure
            logger.debug("cannot download shards: %s", error)
            wait = min(2 * wait, 30.0)
