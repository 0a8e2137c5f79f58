"""Translate errors of disks into one sentence: which file, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mission9.errors import StorageError
from mission9.storage.local.files import is_transient

_PLENTY = 100_000_000  # bytes; a disk with so many is not the one that is full

_AGAIN = "then give the same command again, which goes on where this one stopped"

_SENTENCES = {
    errno.EFBIG: "{file} may not become as large as it must: raise the limit on files (ulimit -f)",
    errno.EROFS: "{file} cannot be written, since its file system is read-only: mount it for writing",
    errno.EACCES: "this user may not read or write {file}: mend its permissions, and those of its folder",
    errno.EPERM: "this user may not read or write {file}: mend its permissions, and those of its folder",
    errno.EMFILE: "too many files are open at a time: raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: end what holds them",
    errno.ENOENT: "{file} is gone, deleted while it was in use: see who does that",
}


# What another try ends in as well, until somebody does something about it.
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def translate_errors(*places: str | Path, only_final: bool = False) -> Iterator[None]:
    """Turn what the system says of files into a `StorageError`.

    `places` are where a file may lie that the error does not name. With `only_final`, what another try may mend is left
    as it is.

    Raises:
        StorageError: in the place of an OSError.
    """
    try:
        yield
    except BrokenPipeError:  # of whoever reads what is printed
        raise
    except OSError as error:
        if only_final and error.errno not in _FINAL:
            raise
        raise StorageError(describe_error(error, places)) from error


def describe_error(error: OSError, places: Sequence[str | Path] = ()) -> str:
    """Return what went wrong with which file, and what to do."""
    named = error.filename2 or error.filename
    where = os.fsdecode(named) if isinstance(named, (str, bytes, os.PathLike)) else None
    file = where or (f"a file in {places[0]}" if places else "a file")
    if error.errno is None:
        return f"{file}: {error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{_room(where, places)}: make room, {_AGAIN}"
    if error.errno == errno.ENOENT and _is_nowhere():
        return "the folder that this command was started in is gone: change to another"
    if is_transient(error):
        return f"the file system of {file} fails again and again ({os.strerror(error.errno)}): see to it, {_AGAIN}"
    known = _SENTENCES.get(error.errno)
    return f"{known.format(file=file)}, {_AGAIN}" if known else f"{file}: {os.strerror(error.errno)}"


def _room(file: str | None, places: Sequence[str | Path]) -> str:
    """Tell how full the disk of a file is; without a name, that of the fullest place it may lie in."""
    candidates = [file] if file else [*map(str, places), *_beside()]
    folders = [_folder_of(place) for place in candidates]
    folder = min(folders, key=lambda place: shutil.disk_usage(place).free)
    usage = shutil.disk_usage(folder)
    if file is None and usage.free > _PLENTY:
        return "a disk is full, or a quota used up, and the system does not say which"
    what = f"for {file}" if file else f"in {folder}"
    return f"there is not enough room {what} (free: {usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB)"


def _beside() -> list[str]:
    """Return where something is written that no error names: temporary files, Spark's, and what processes share."""
    spark = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
    return [*filter(None, spark), os.environ.get("TMPDIR") or "/tmp", "/dev/shm"]  # noqa: S108


def _folder_of(place: str) -> str:
    """The innermost folder of a path that is there."""
    return next((str(path) for path in (Path(place), *Path(place).parents) if path.is_dir()), "/")


def _is_nowhere() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False
