"""Untrusted files: read up to a size limit and parsed without running code, or refused."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from mission9.storage.local.files import naming, retry_io

MIB = 1024 * 1024

# MobileNetV2 takes 14 MB in float32, and three times as much with its optimizer state.
MAX_WEIGHTS_BYTES = 128 * MIB
MAX_JSON_BYTES = MIB

_MAX_HEADER_BYTES = MIB  # the names and shapes of ten thousand tensors
_ARCHIVE_ENTRY = b"PK\x01\x02"
_MAX_ARCHIVE_ENTRIES = 10_000


def read_file(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is larger, or a pipe or a device, which may be endless.
    """

    def read() -> bytes:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise ValueError(f"{path.name} is not a regular file")
            if facts.st_size > most:
                raise ValueError(f"{path.name} has {facts.st_size:,} bytes, over the limit of {most:,}")
            return file.read(most)

    with naming(path):
        return retry_io(read)


def read_json(path: Path, most: int = MAX_JSON_BYTES) -> Any:
    """Parse a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large, or not JSON.
    """
    try:
        return json.loads(read_file(path, most))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error


def read_tensors(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays in the bytes of a safetensors file.

    Raises:
        ValueError: the bytes are not safetensors, or hold types that numpy lacks.
    """
    if int.from_bytes(data[:8], "little") > _MAX_HEADER_BYTES:
        raise ValueError("its header is larger than any list of names and shapes")
    try:
        return safetensors.numpy.load(data)
    except Exception as error:  # the parser raises its own errors, and numpy's on a wrong header
        raise ValueError(f"{type(error).__name__}: {error}") from error


def check_archive(data: bytes) -> None:
    """Refuse an archive that unpacks to more than its own size: torch stores tensors uncompressed.

    Raises:
        ValueError: the archive holds too many files, or unpacks to more than its own size.
    """
    file = io.BytesIO(data)
    if not zipfile.is_zipfile(file):
        return
    if data.count(_ARCHIVE_ENTRY) > _MAX_ARCHIVE_ENTRIES:
        raise ValueError("it holds more files than a model has tensors")
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > len(data):
        raise ValueError(f"it would unpack to {unpacked:,} bytes")
