"""Lock an output folder for one writer at a time, and recover after a killed run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mission9.errors import OutputError, SetupError, UsageError
from mission9.output.layout import PAGE, RECEIPTS, REPORT, SHARDS, STATE, TABLES
from mission9.output.local import Output
from mission9.output.report_file import is_ours
from mission9.output.shards import sweep_tries
from mission9.storage.local.files import files_in, make_folder, remove_file, remove_folder, retry_io
from mission9.storage.local.lock import sign, take_lock


@contextmanager
def open_local_output(root: Path, *, overwrite: bool) -> Iterator[Output]:
    """Open the output folder, created if absent and locked against other runs.

    Folders created by this call are deleted again if the request is refused.

    Raises:
        OutputError: it is a file, is not writable, holds foreign files, or another run is writing to it.
    """
    output = Output(root.absolute())
    try:
        refuse_links(output.root)
        is_new, has_state = not output.root.exists(), output.state.is_dir()
        retry_io(lambda: check_may_begin(output, overwrite=overwrite))
        lock = take_lock(output.lock, f"another run is writing to {output.root}")
    except OSError as error:
        raise OutputError(
            f"the output folder {root} cannot be written: {error.strerror}; pass another with --output"
        ) from error
    with lock:
        try:
            sign(lock)
            _tidy(output)
            yield output
        except (UsageError, SetupError):
            if not has_state and not any((output.state / SHARDS).glob("*/*.json")):
                shutil.rmtree(output.root if is_new else output.state, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(output.work, ignore_errors=True)
            with suppress(OSError):  # the next holder signs it
                lock.truncate(0)


def refuse_links(root: Path) -> None:
    """Refuse an output with symbolic links: their targets are not mission9's to replace or delete.

    Raises:
        OutputError: there is a symbolic link.
    """
    for link in (link for name in (STATE, *sorted(TABLES)) for link in _links_in(root / name)):
        raise OutputError(
            f"{link} is a symbolic link, which mission9 never creates: replace it by its target, or delete it"
        )


def _links_in(path: Path) -> Iterator[Path]:
    if retry_io(path.is_symlink):
        yield path
    elif retry_io(path.is_dir):
        for entry in retry_io(lambda: _entries(path)):
            if entry.is_symlink() or entry.is_dir():
                yield from _links_in(Path(entry.path))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def check_may_begin(output: Output, *, overwrite: bool) -> None:
    """Refuse a folder with foreign files, unless `overwrite` is set; never overwrite them.

    Raises:
        OutputError: it is a file, or holds foreign files.
    """
    if output.state.is_dir() or not output.root.exists():
        return
    if not output.root.is_dir():
        raise OutputError(f"the output {output.root} is a file: pass a folder with --output")
    # The state may have been created a moment ago, by a concurrent run.
    others = [name for name in os.listdir(output.root) if not name.startswith(".") and name != STATE]
    taken = sorted(TABLES.union([REPORT, PAGE]).intersection(others))
    if taken:
        raise OutputError(
            f"{output.root / taken[0]} was not written by mission9 and would be overwritten: pass another --output"
        )
    if others and not overwrite:
        raise OutputError(
            f"the output folder {output.root} holds {others[0]}, not written by mission9: pass another folder, "
            "or --overwrite to write next to it"
        )


def _tidy(output: Output) -> None:
    """Finish or delete the work of a killed run, and check that no foreign folder is in the way."""
    if output.has_ready:
        retry_io(output.complete)
    state, receipts = files_in(output.state), output.state / RECEIPTS
    state += files_in(receipts) if receipts.is_dir() else []
    chunks = [path for path in state if path.name.startswith("chunks")]
    for leftover in (output.work, output.ready, *chunks):
        remove_folder(leftover)
    output.empty_trash()
    for fingerprint in output.fingerprints():
        sweep_tries(output.shards(fingerprint))
    partials = [path for path in files_in(output.root) if path.name.startswith((f".{REPORT}.", f".{PAGE}."))]
    for partial in (*partials, *(path for path in state if path.name.startswith("."))):
        remove_file(partial)
    taken = sorted(name for name in TABLES - output.published() if (output.root / name).exists())
    if os.path.lexists(output.root / PAGE) and not is_ours(output.root / PAGE):
        taken.append(PAGE)
    if taken:
        raise OutputError(f"{output.root / taken[0]} was not written by mission9, and would be replaced: move it")
    make_folder(output.work)
