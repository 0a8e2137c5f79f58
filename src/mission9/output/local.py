"""The output folder: its layout, and the atomic publication of finished tables."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mission9.errors import OutputError
from mission9.output.layout import (
    _NAMES,
    CHECKSUMS,
    DONE,
    FEATURES_FOLDER,
    PAGE,
    REJECTS_FOLDER,
    REPORT,
    SHARDS,
    STATE,
    TABLES,
    done_file,
)
from mission9.output.report_file import is_ours
from mission9.output.shards import clear_away
from mission9.storage.file_store import FileStore, FolderStore
from mission9.storage.local.files import (
    atomic_path,
    discard,
    file_sha256,
    files_below,
    files_in,
    is_transient,
    link_or_copy,
    make_folder,
    read_whole,
    remove_file,
    remove_folder,
    replace_folder,
    retry_io,
    sync_file_system,
    write_atomic,
)
from mission9.storage.local.lock import is_held
from mission9.storage.local.untrusted import MIB, read_json
from mission9.storage.s3.address import Address

if TYPE_CHECKING:
    from mission9.output.bucket.shards import SharedShards

logger = logging.getLogger(__name__)


# Reserved space for small files written while the old result is being replaced, in case the disk is full by then.
_RESERVE, _LEAST_RESERVE = "reserve", 1 << 16

_MAX_REPORT_BYTES = 256 * MIB  # the checksums of a million files

_PATIENCE = 60.0  # seconds to wait for another run to publish

# The form of `Extraction.fingerprint`: an untrusted output may name any folder in its place.
FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Output:
    """The layout of an output folder.

    Tables are made in `work`. When all are complete it is renamed to `ready` in one step, which makes the new result
    current: it only remains to move it into place, by this run or, if it is killed, by the next that opens the folder.
    `shards` keeps committed shards.
    """

    root: Path

    @property
    def is_mirror(self) -> bool:
        """True for the local mirror of a remote output."""
        return False

    @property
    def place(self) -> str:
        """The place of the results, in the form of `location.real_root`."""
        return os.path.realpath(self.root)

    @property
    def state(self) -> Path:
        return self.root / STATE

    @property
    def work(self) -> Path:
        return self.state / "work"

    @property
    def ready(self) -> Path:
        return self.state / "ready"

    @property
    def trash(self) -> Path:
        return self.state / "trash"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    def wait_until_published(self) -> None:
        """Wait while a run of this machine moves its result into place, for at most a minute."""
        end = time.monotonic() + _PATIENCE
        while self.is_publishing and time.monotonic() < end:
            time.sleep(0.02)

    @property
    def is_publishing(self) -> bool:
        """Return True if a run on this machine is moving its result into place."""
        return self.ready.exists() and is_held(self.lock)

    @property
    def state_files(self) -> FileStore:
        """The small files of the state."""
        return FolderStore(self.state)

    @property
    def has_ready(self) -> bool:
        """Return True if a run was killed while it published: its result is current, but not in place."""
        return _names_in(self.ready / _NAMES) is not None and (self.ready / CHECKSUMS).exists()

    @property
    def is_empty(self) -> bool:
        """Return True if no run has produced a plan here."""
        return not (self.state / SHARDS).exists()

    def shards(self, fingerprint: str) -> Path:
        """The folder of the committed shards of one features table.

        Raises:
            OutputError: `fingerprint` is not valid, as in a `run.json` that mission9 did not write.
        """
        if not FINGERPRINT.fullmatch(fingerprint):
            raise OutputError(
                f"{self.root / REPORT} is damaged or not written by mission9: its fingerprint is {fingerprint!r}; "
                "pass another --output"
            )
        return self.state / SHARDS / fingerprint

    def calibration(self, fingerprint: str) -> Path:
        """The folder of the int8 network calibrated for an extraction; feature fingerprints are based on it."""
        return self.state / "int8" / fingerprint

    def last_report(self) -> dict[str, Any]:
        """The `run.json` of the current result; empty if there is none."""
        return _read_object(self.root / REPORT)

    def shared(self, fingerprint: str, todo: str) -> SharedShards | None:  # noqa: ARG002 (of results in a bucket)
        """The folder to which workers commit the shards of the plan `todo`, if it is not `shards`."""
        return None

    def download_shards(self, fingerprint: str) -> None:
        """Make `shards` hold exactly the shards that earlier runs have committed."""
        make_folder(self.shards(fingerprint))

    def upload_plan(self, fingerprint: str, plan: Path, todo: Path, name: str) -> None:
        """Publish a plan to workers and later runs, with its pending rows under `name`."""

    def fingerprints(self) -> list[str]:
        """The fingerprints of the features tables that have shards."""
        folder = self.state / SHARDS
        names = [path.name for path in files_in(folder) if path.is_dir()] if folder.is_dir() else []
        return sorted(filter(FINGERPRINT.fullmatch, names))

    def upload_shards(self, fingerprint: str) -> None:
        """Publish exactly the content of `shards` to later runs."""

    def downloading(self, fingerprint: str, keys: Collection[str]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Copy shards to `shards` as workers commit them, of the keys given; all of them when the context ends."""
        return nullcontext()

    def publish_page(self) -> None:
        """Publish the page written into the published result."""

    def publish(self, report: bytes | None = None, *, plan: Path | None = None, with_features: bool = False) -> None:
        """Replace the last result by the tables in `work`; `run.json` comes last.

        `plan` lists the inputs of the result; by default that of the previous result is kept. The checksums of features
        are those of the shards that they link to, unless `with_features` is set.
        """
        names = sorted(table.name for table in files_in(self.work))
        if report is not None:
            write_atomic(self.work / REPORT, report)
        checksums = json.dumps(_checksums(self.work, with_features=with_features), indent=1).encode()
        write_atomic(self.work / CHECKSUMS, checksums)
        write_atomic(self.work / _NAMES, json.dumps(names).encode())
        if plan is not None:
            link_or_copy(plan, self.work / DONE)
        write_atomic(self.work / _RESERVE, os.urandom(_LEAST_RESERVE + 2 * len(checksums)))
        sync_file_system(self.work)  # before any file refers to it
        retry_io(lambda: self.work.rename(self.ready))
        retry_io(self.complete)

    def forget_rejects(self) -> None:
        """Delete the rejects that `keep_rejects` has added to an older result."""
        remove_folder(self.state / REJECTS_FOLDER)

    def unpublish(self) -> None:
        """Remove the result, with all of its tables."""
        remove_file(self.root / REPORT)
        if is_ours(self.root / PAGE):
            remove_file(self.root / PAGE)
        for name in self.published():
            discard(self.root / name, trash=self.trash)
        self._record(set())
        remove_file(self.state / CHECKSUMS)
        remove_folder(self.trash)

    def complete(self) -> None:
        """Move the content of `ready` into place. The call is idempotent, and may be killed at any moment.

        Without `run.json` tables of two results may coexist, so slow work comes after it.
        """
        new = _names_in(self.ready / _NAMES)
        if new is None:
            return
        fingerprint = str(_read_object(self.ready / REPORT).get("fingerprint", ""))
        shards = self.shards(fingerprint) if (self.ready / DONE).exists() else None
        remove_file(self.ready / _RESERVE)
        remove_file(self.root / REPORT)
        if is_ours(self.root / PAGE):  # it belongs to the old result
            remove_file(self.root / PAGE)
        for name in self.published() - new:
            discard(self.root / name, trash=self.trash)
        self._record(self.published() | new)
        for name in sorted(new):
            if (self.ready / name).exists():
                replace_folder(self.ready / name, self.root / name, trash=self.trash)
        self._record(new)
        write_atomic(self.state / CHECKSUMS, read_whole(self.ready / CHECKSUMS))
        if shards:
            with atomic_path(done_file(shards)) as done:
                link_or_copy(self.ready / DONE, done)
        if (self.ready / REPORT).exists():
            write_atomic(self.root / REPORT, read_whole(self.ready / REPORT))
        if shards:
            clear_away(shards)
        discard(self.ready, trash=self.trash)
        sync_file_system(self.root)
        self.empty_trash()

    def empty_trash(self) -> None:
        """Delete replaced files. On NFS a file that a reader has open keeps its folder."""
        with suppress(OSError):
            remove_folder(self.trash)

    def checksums(self) -> dict[str, str]:
        """The SHA-256 of each published file by its path below `root`; those of features are in their markers."""
        found = _read_object(self.state / CHECKSUMS)
        if all(_is_published(name) for name in found):
            return found
        logger.warning("%s names files that mission9 never writes, and is ignored", self.state / CHECKSUMS)
        return {}

    def published(self) -> set[str]:
        """The names of the tables that mission9 wrote to `root`."""
        names = _names_in(self.state / _NAMES)
        if names is None:  # damaged or missing; the checksums name each file of a result too
            noted = {name.partition("/")[0] for name in self.checksums()}
            names = noted & TABLES | ({FEATURES_FOLDER} if noted else set())
        return names

    def _record(self, names: set[str]) -> None:
        write_atomic(self.state / _NAMES, json.dumps(sorted(names)).encode())

    def keep_rejects(self) -> Path | Address:
        """Save the rejects of a failed run for its user, next to an older result if there is one."""
        place = self.state if (self.root / REPORT).exists() else self.root
        if place == self.root:
            self._record(self.published() | {REJECTS_FOLDER})
        replace_folder(self.work / REJECTS_FOLDER, place / REJECTS_FOLDER, trash=self.trash)
        shutil.rmtree(self.trash, ignore_errors=True)
        return place / REJECTS_FOLDER


def _is_published(name: str) -> bool:
    """Return True if a relative path can be that of a file of a result."""
    first, *others = name.split("/")
    return first in TABLES | {REPORT} and not {"", ".", ".."}.intersection(others)


def _read_object(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if it is missing or damaged."""
    found = _read_json(file)
    return found if isinstance(found, dict) else {}


def _names_in(file: Path) -> set[str] | None:
    """The table names that a file lists; None if it is missing or damaged."""
    found = _read_json(file)
    return set(found) if isinstance(found, list) and all(name in TABLES for name in found) else None


def _read_json(file: Path) -> object:
    """The content of a JSON file; None if it is missing or damaged."""
    try:
        return read_json(file, _MAX_REPORT_BYTES)
    except OSError as error:
        if is_transient(error):  # the file itself may be fine
            raise
    except ValueError:
        logger.warning("%s is damaged and ignored", file)
    return None


def _checksums(work: Path, *, with_features: bool) -> dict[str, str]:
    names = ((str(path.relative_to(work)), path) for path in sorted(files_below(work)))
    left_out = "" if with_features else f"{FEATURES_FOLDER}/"
    return {name: file_sha256(path) for name, path in names if not (left_out and name.startswith(left_out))}
