"""A result in a bucket: built in a mirror on this machine, and published by one pointer.

    PREFIX/run.json            the report of the current result; `tables` names the prefix of its tables
    PREFIX/runs/RUN_ID/        the tables of a result, its model, run.json, report.html and checksums.json
    PREFIX/_state/             committed shards, the plan, the lock: internal, not for readers

The pointer is written last, by one request, and the previous result is deleted after that: a reader that follows it
sees a complete result, old or new, even if a run is killed. The bucket is authoritative; a mirror may be lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mission9.errors import OutputError
from mission9.output.bucket.mirror import file_of, mirror_of
from mission9.output.bucket.shards import SharedShards, download, incoming, shared_name
from mission9.output.layout import CHECKSUMS, FEATURES_FOLDER, PAGE, REJECTS_FOLDER, REPORT, SHARDS, STATE
from mission9.output.local import FINGERPRINT, Output
from mission9.output.open_local import open_local_output
from mission9.output.report_file import run_of
from mission9.storage.file_store import BucketStore
from mission9.storage.local.files import files_in, write_atomic
from mission9.storage.local.untrusted import MIB
from mission9.storage.s3.address import Address
from mission9.storage.s3.lease import Lease, leased
from mission9.storage.s3.listing import list_below, list_level
from mission9.storage.s3.objects import copy, delete, fetch, get_or_none, map_concurrent, put

logger = logging.getLogger(__name__)

RUNS, TABLES_AT = "runs", "tables"
_OURS = {REPORT, RUNS, STATE}
_CALIBRATIONS = "int8"
MAX_REPORT_BYTES = 256 * MIB


@contextmanager
def open_bucket_output(address: Address, *, overwrite: bool) -> Iterator[BucketOutput]:
    """Open the output at a prefix, locked against other runs everywhere, and its mirror.

    Raises:
        OutputError: the prefix holds foreign objects, is not writable, or another run is writing to it.
        StorageError: the bucket fails.
    """
    if not address.key:
        raise OutputError(f"the output cannot be the top of {address}: pass s3://{address.bucket}/PREFIX")
    _check_may_begin(address, overwrite=overwrite)
    with (
        leased(address / STATE / "lock") as lease,
        open_local_output(mirror_of(address, "output"), overwrite=True) as mirror,
    ):
        output = BucketOutput(mirror.root, address, lease)
        output.download_state()
        yield output


@dataclass(frozen=True)
class BucketOutput(Output):
    """An output whose `root` is the mirror of the prefix `address`."""

    address: Address
    lease: Lease

    @property
    def is_mirror(self) -> bool:
        return True

    @property
    def place(self) -> str:
        return str(self.address)

    @property
    def state_files(self) -> BucketStore:
        return BucketStore(self.address / STATE)

    def download_state(self) -> None:
        """Download the bucket's record of earlier runs, without shards, and delete another result's page and tables."""
        pointer = get_or_none(self.address / REPORT, MAX_REPORT_BYTES)
        run_id = _run_in(pointer or b"")
        if run_id is None or run_id != self.last_report().get("run_id"):
            super().unpublish()
        if pointer is not None:
            write_atomic(self.root / REPORT, pointer)
        _fetch_below(self.address / STATE / _CALIBRATIONS, self.state / _CALIBRATIONS)

    def shared(self, fingerprint: str, todo: str) -> SharedShards:
        folder = self._shared_shards(fingerprint)
        return SharedShards(folder, folder / f"todo-{todo}.parquet")

    def download_shards(self, fingerprint: str) -> None:
        super().download_shards(fingerprint)
        download(self._shared_shards(fingerprint), self.shards(fingerprint), run_id=self._run_id())

    def upload_plan(self, fingerprint: str, plan: Path, todo: Path, name: str) -> None:
        shared = self.shared(fingerprint, name)
        put(shared.todo, todo)
        put(shared.folder / plan.name, plan)
        self._share_calibrations()

    def fingerprints(self) -> list[str]:
        names = (prefix.name for prefix in list_level(self.address / STATE / SHARDS)[1])
        return sorted(filter(FINGERPRINT.fullmatch, names))

    def upload_shards(self, fingerprint: str) -> None:
        self.lease.check()
        kept, shards, run_id = self.shards(fingerprint), self._shared_shards(fingerprint), self._run_id()
        _share_below(kept, shards, run_id)
        delete(self._not_of(kept, shards, run_id))

    def unpublish(self) -> None:
        self.lease.check()
        super().unpublish()
        delete([self.address / REPORT])
        delete(Address(self.address.bucket, found.key) for page in list_below(self.address / RUNS) for found in page)

    def downloading(self, fingerprint: str, keys: Collection[str]) -> AbstractContextManager[None]:
        return incoming(self._shared_shards(fingerprint), self.shards(fingerprint), keys)

    def publish(self, report: bytes | None = None, *, plan: Path | None = None, with_features: bool = False) -> None:
        super().publish(report, plan=plan, with_features=with_features)
        facts: dict[str, Any] = json.loads(report or b"{}")
        fingerprint, run_id = facts["fingerprint"], facts["run_id"]
        shards, tables = self._shared_shards(fingerprint), self.address / RUNS / run_id
        self.lease.check()
        _share_below(self.shards(fingerprint), shards, run_id)
        _share_tables(self, tables, self._shared_features(fingerprint, shards))
        self.lease.check()
        pointer = {TABLES_AT: f"{RUNS}/{run_id}", **facts}
        put(self.address / REPORT, (json.dumps(pointer, indent=2, ensure_ascii=False) + "\n").encode())
        self._clear_away(run_id, shards, self.shards(fingerprint))

    def publish_page(self) -> None:
        run_id = self._run_id()
        if run_id and run_of(self.root / PAGE) == run_id:
            put(self.address / RUNS / run_id / PAGE, self.root / PAGE)
            logger.info("report: %s", self.address / RUNS / run_id / PAGE)

    def keep_rejects(self) -> Address:
        kept = super().keep_rejects()
        there = self.address / STATE / REJECTS_FOLDER
        _share_below(Path(str(kept)), there)
        return there

    def forget_rejects(self) -> None:
        super().forget_rejects()
        kept = list_below(self.address / STATE / REJECTS_FOLDER)
        delete(Address(self.address.bucket, found.key) for page in kept for found in page)

    def _run_id(self) -> str:
        return str(self.last_report().get("run_id", ""))

    def _shared_shards(self, fingerprint: str) -> Address:
        return self.address / STATE / SHARDS / fingerprint

    def _shared_features(self, fingerprint: str, shards: Address) -> dict[int, Address]:
        """Map inodes to objects that already hold their content: features are hard links, not copies."""
        return {file.stat().st_ino: shards / file.name for file in files_in(self.shards(fingerprint))}

    def _share_calibrations(self) -> None:
        for folder in files_in(self.state / _CALIBRATIONS) if (self.state / _CALIBRATIONS).is_dir() else ():
            _share_below(folder, self.address / STATE / _CALIBRATIONS / folder.name)

    def _clear_away(self, run_id: str, shards: Address, kept: Path) -> None:
        """Delete earlier results, and the shards that are in no part of this one."""
        old = [
            Address(self.address.bucket, found.key)
            for page in list_below(self.address / RUNS)
            for found in page
            if not found.key.startswith(f"{(self.address / RUNS / run_id).key}/")
        ]
        delete([*old, *self._not_of(kept, shards, run_id)])

    def _not_of(self, kept: Path, shards: Address, run_id: str) -> list[Address]:
        """The objects in a bucket's folder of shards that the local folder `kept`, with the plan of `run_id`, lacks."""
        names = {shared_name(file.name, run_id) for file in files_in(kept)}
        return [shards / name for page in list_below(shards) for name in _names(page, shards) if name not in names]


def _check_may_begin(address: Address, *, overwrite: bool) -> None:
    """Refuse a prefix that holds foreign objects, unless `overwrite` is set."""
    objects, prefixes = list_level(address, OutputError)
    names = [*(address.relative(found.key) for found in objects), *(prefix.name for prefix in prefixes)]
    others = [name for name in names if name not in _OURS and name]
    if STATE not in names and REPORT in names:
        raise OutputError(
            f"{address / REPORT} was not written by mission9 and would be overwritten: pass another --output"
        )
    if others and STATE not in names and not overwrite:
        raise OutputError(
            f"the output {address} holds {others[0]}, not written by mission9: pass another prefix, or "
            "--overwrite to write next to it"
        )


def _run_in(pointer: bytes) -> object:
    """The run that a pointer names; None if it is damaged."""
    try:
        return json.loads(pointer)["run_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _share_below(folder: Path, address: Address, run_id: str = "") -> None:
    """Upload the missing files of a folder below an address, markers and plans last.

    In a folder of shards, the plan of a result is that of `run_id`.
    """
    uploaded = {found.key: found for page in list_below(address) for found in page}

    def is_uploaded(file: Path) -> bool:
        found = uploaded.get((address / file.name).key)
        return found is not None and found.size == file.stat().st_size and file.name.count(".") > 1

    # The pending rows have a name of their own for each run, until none are left.
    missing = [file for file in files_in(folder) if not is_uploaded(file) and file.name != "todo.parquet"]
    for group in _in_turn(missing):
        map_concurrent(lambda file: put(address / shared_name(file.name, run_id), file), group)


def _in_turn(files: list[Path]) -> tuple[list[Path], ...]:
    """Group files in upload order: tables of shards, the markers that refer to them, the plans that name these."""
    tables = [file for file in files if file.name.count(".") > 1]
    markers = [file for file in files if file.suffix == ".json" and file not in tables]
    return tables, markers, [file for file in files if file not in tables and file not in markers]


def _share_tables(output: Output, tables: Address, shared: dict[int, Address]) -> None:
    """Upload every file of the result published in the mirror below an address."""
    files = [output.root / REPORT]
    for name in sorted(output.published()):
        files += [path for path in sorted((output.root / name).rglob("*")) if path.is_file()]

    def share(file: Path) -> None:
        relative = str(file.relative_to(output.root))
        source = shared.get(file.stat().st_ino) if relative.startswith(f"{FEATURES_FOLDER}/") else None
        if source is not None:
            copy(source, tables / relative)
        else:
            put(tables / relative, file)

    map_concurrent(share, files)
    put(tables / CHECKSUMS, output.state / CHECKSUMS)


def _fetch_below(address: Address, folder: Path) -> None:
    for page in list_below(address):
        for found in page:
            file = file_of(found.key, address, folder)
            file.parent.mkdir(parents=True, exist_ok=True)
            fetch(Address(address.bucket, found.key), file)


def _names(page: list[Any], address: Address) -> list[str]:
    return [address.relative(found.key) for found in page]
