"""The output folder: who may write it, where things lie in it, and how finished tables appear."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mission9.errors import OutputError, UsageError
from mission9.files import replace_folder, write_whole

FEATURES_FOLDER, REJECTS_FOLDER, MODEL_FOLDER, REPORT = "features", "rejects", "pca_model", "run.json"
_STATE, _SHARDS = "_state", "shards"


@dataclass(frozen=True)
class Output:
    """The layout of an output folder.

    Tables are made in `work` and moved to `root` when all are complete, `run.json` last; `shards` keeps what workers
    have committed, for the next run too.
    """

    root: Path

    @property
    def state(self) -> Path:
        return self.root / _STATE

    @property
    def plan(self) -> Path:
        return self.state / "plan.parquet"

    @property
    def work(self) -> Path:
        return self.state / "work"

    def shards(self, fingerprint: str) -> Path:
        """Where the shards of one features table are committed."""
        return self.state / _SHARDS / fingerprint

    def publish(self, report: bytes) -> None:
        """Make the tables in `work` the result: those of the last run go, and `run.json` comes last."""
        (self.root / REPORT).unlink(missing_ok=True)
        old = _tables(self.root)
        for name in old - self.publish_tables():
            shutil.rmtree(self.root / name)
        write_whole(self.root / REPORT, report)

    def publish_tables(self) -> set[str]:
        """Put every table in `work` in its place, and say which there were."""
        new = {folder.name for folder in self.work.iterdir()}
        for name in sorted(new):
            replace_folder(self.work / name, self.root / name, trash=self.state / "trash")
        return new

    def keep_rejects(self) -> Path:
        """Put the rejects of a run that fails where they can be read, beside an older result if there is one."""
        place = self.state if (self.root / REPORT).exists() else self.root
        replace_folder(self.work / REJECTS_FOLDER, place / REJECTS_FOLDER, trash=self.state / "trash")
        return place / REJECTS_FOLDER


@contextmanager
def open_output(root: str, *, overwrite: bool) -> Iterator[Output]:
    """The output folder, made if need be and locked against other runs.

    A folder that this call made is taken away again where the request turns out to be impossible.

    Raises:
        OutputError: it is a file, cannot be written, holds files of others, or another run is writing it.
    """
    output = Output(Path(root).absolute())
    is_new = not output.root.exists()
    _check_is_ours(output, overwrite=overwrite)
    try:
        output.state.mkdir(parents=True, exist_ok=True)
        lock = (output.state / "lock").open("a+")
    except OSError as error:
        raise OutputError(f"the output folder {root} cannot be written: {error.strerror}") from error
    with lock:
        _hold(lock, output)
        try:
            shutil.rmtree(output.work, ignore_errors=True)
            output.work.mkdir()
            yield output
        except UsageError:
            if is_new and not (output.state / _SHARDS).exists():
                shutil.rmtree(output.root, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(output.work, ignore_errors=True)


def _check_is_ours(output: Output, *, overwrite: bool) -> None:
    if not output.root.exists():
        return
    if not output.root.is_dir():
        raise OutputError(f"the output {output.root} is a file; give a folder with --output")
    others = [name for name in os.listdir(output.root) if not name.startswith(".")]
    if others and not output.state.is_dir() and not overwrite:
        raise OutputError(
            f"the output folder {output.root} holds {others[0]}, which mission9 did not write: give another folder, "
            "or --overwrite to write beside it (only mission9's own names are replaced)"
        )


def _hold(lock: TextIO, output: Output) -> None:
    """Take the folder's lock; the system lets go of it when the file is closed, or the process ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise OutputError(f"another run is writing {output.root}: {lock.read() or 'just started'}") from error
    lock.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    lock.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}))
    lock.flush()


def _tables(root: Path) -> set[str]:
    """The folders in `root` with names that mission9 gives."""
    ours = (FEATURES_FOLDER, REJECTS_FOLDER, MODEL_FOLDER)
    return {
        folder.name
        for folder in root.iterdir()
        if folder.is_dir() and (folder.name in ours or folder.name.endswith(("_pca", "_pca_csv")))
    }
