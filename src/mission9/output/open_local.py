"""Lock an output folder for one writer at a time; finish or clear away what a killed run left in it."""

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
    """The output folder, made if need be and locked against other runs.

    What this call made is taken away again where the request turns out to be impossible.

    Raises:
        OutputError: it is a file, cannot be written, holds files of others, or another run is writing it.
    """
    output = Output(root.absolute())
    try:
        refuse_links(output.root)
        is_new, has_state = not output.root.exists(), output.state.is_dir()
        retry_io(lambda: check_may_begin(output, overwrite=overwrite))
        lock = take_lock(output.lock, f"another run is writing {output.root}")
    except OSError as error:
        raise OutputError(
            f"the output folder {root} cannot be written: {error.strerror}; give another with --output"
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
            with suppress(OSError):  # whoever takes it next says so in it
                lock.truncate(0)


def refuse_links(root: Path) -> None:
    """Refuse an output among whose files there are symbolic links: what they lead to is not ours to replace or delete.

    Raises:
        OutputError: there is one.
    """
    for link in (link for name in (STATE, *sorted(TABLES)) for link in _links_in(root / name)):
        raise OutputError(
            f"{link} is a symbolic link, and mission9 never makes one: put in its place what it leads to, or delete it"
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
    """Refuse a folder of others, unless asked to write beside what is there; never write over it.

    Raises:
        OutputError: it is a file, or holds files of others.
    """
    if output.state.is_dir() or not output.root.exists():
        return
    if not output.root.is_dir():
        raise OutputError(f"the output {output.root} is a file; give a folder with --output")
    # The state may have been made this very moment, by a run that was started at the same time.
    others = [name for name in os.listdir(output.root) if not name.startswith(".") and name != STATE]
    taken = sorted(TABLES.union([REPORT, PAGE]).intersection(others))
    if taken:
        raise OutputError(
            f"{output.root / taken[0]} was not written by mission9, which would replace it: give another --output"
        )
    if others and not overwrite:
        raise OutputError(
            f"the output folder {output.root} holds {others[0]}, which mission9 did not write: give another folder, "
            "or --overwrite to write beside it"
        )


def _tidy(output: Output) -> None:
    """Finish or clear away what a run that was killed has left, and see that no one's folder is in the way."""
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
        raise OutputError(f"{output.root / taken[0]} was not written by mission9, which would replace it: move it away")
    make_folder(output.work)
