"""Files that appear whole: written under a private name, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def private_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses, hidden from readers of the folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, on the disk, or not at all."""
    partial = private_name(path)
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def replace_folder(new: Path, final: Path, *, trash: Path) -> None:
    """Put the folder `new` in the place of `final`; what was there goes to `trash`."""
    discard(final, trash=trash)
    new.rename(final)


def discard(folder: Path, *, trash: Path) -> None:
    """Move a folder to `trash`, if it is there: deleting it may take long."""
    if folder.exists():
        trash.mkdir(parents=True, exist_ok=True)
        folder.rename(trash / f"{folder.name}.{uuid.uuid4().hex[:12]}")


def link_or_copy(source: Path, target: Path) -> None:
    """The same content under a second name, without a copy where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A private name to write to, which becomes `path` when that went well."""
    partial = private_name(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
