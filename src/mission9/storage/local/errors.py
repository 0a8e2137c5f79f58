"""Translate OS errors into one sentence: which file, and the remedy."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mission9.errors import StorageError
from mission9.storage.local.files import is_transient

_PLENTY = 100_000_000  # bytes; a disk with this much free space is not the full one

_AGAIN = "then rerun the same command to resume"

_SENTENCES = {
    errno.EFBIG: "{file} exceeds the file size limit: raise it (ulimit -f)",
    errno.EROFS: "cannot write {file} on a read-only file system: remount it for writing",
    errno.EACCES: "no permission to read or write {file}: fix its permissions, and those of its folder",
    errno.EPERM: "no permission to read or write {file}: fix its permissions, and those of its folder",
    errno.EMFILE: "this process has too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "this machine has too many open files: end the processes that hold them",
    errno.ENOENT: "{file} was deleted while in use: find the process that deletes it",
}


# Permanent errors: a retry fails in the same way until somebody acts.
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def translate_errors(*places: str | Path, only_final: bool = False) -> Iterator[None]:
    """Turn an OSError into a `StorageError`.

    `places` are candidate locations of a file that the error does not name. With `only_final`, transient errors pass
    through unchanged.

    Raises:
        StorageError: in place of an OSError.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of standard output has gone
        raise
    except OSError as error:
        if only_final and error.errno not in _FINAL:
            raise
        raise StorageError(describe_error(error, places)) from error


def describe_error(error: OSError, places: Sequence[str | Path] = ()) -> str:
    """Describe an OS error: the problem, the file and the remedy."""
    named = error.filename2 or error.filename
    where = os.fsdecode(named) if isinstance(named, (str, bytes, os.PathLike)) else None
    file = where or (f"a file in {places[0]}" if places else "a file")
    if error.errno is None:
        return f"{file}: {error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{_room(where, places)}: free some space, {_AGAIN}"
    if error.errno == errno.ENOENT and _is_nowhere():
        return "the current folder was deleted: change to another"
    if is_transient(error):
        return f"{file}: repeated file system errors ({os.strerror(error.errno)}). Fix the file system, {_AGAIN}"
    known = _SENTENCES.get(error.errno)
    return f"{known.format(file=file)}, {_AGAIN}" if known else f"{file}: {os.strerror(error.errno)}"


def _room(file: str | None, places: Sequence[str | Path]) -> str:
    """Describe how full a file's disk is; without a name, the fullest disk of `places` and temporary folders."""
    candidates = [file] if file else [*map(str, places), *_folders_in_use()]
    folders = [_folder_of(place) for place in candidates]
    folder = min(folders, key=lambda place: shutil.disk_usage(place).free)
    usage = shutil.disk_usage(folder)
    if file is None and usage.free > _PLENTY:
        return "a disk is full or a quota is used up (the system does not name it)"
    what = f"for {file}" if file else f"in {folder}"
    return f"not enough space {what} (free: {usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB)"


def _folders_in_use() -> list[str]:
    """The folders that mission9 writes to without naming them: temporary files, Spark's, and shared memory."""
    spark = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
    return [*filter(None, spark), os.environ.get("TMPDIR") or "/tmp", "/dev/shm"]  # noqa: S108


def _folder_of(place: str) -> str:
    """The innermost existing folder of a path."""
    return next((str(path) for path in (Path(place), *Path(place).parents) if path.is_dir()), "/")


def _is_nowhere() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False
