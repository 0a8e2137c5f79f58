"""A file that is changed in its place while it is read: its bytes are those of one moment, or it is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from mission9.errors import ImageError
from mission9.storage.local import read_bytes as module
from mission9.storage.local.read_bytes import read_bytes

SIZE = 2 << 20  # more than a reader takes ahead
OLD, NEW = b"o" * SIZE, b"n" * SIZE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "image.jpg"
    file.write_bytes(OLD)
    os.utime(file, ns=(0, 0))
    return file


def changed_at_half(path: Path, monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[bytes]:
    """Have another write the file in its place when half of it is read, so many times; what each reading gives."""
    whole, readings = module._content, list[bytes]()

    def content(file: BinaryIO, max_bytes: int) -> bytes:
        half = file.read(SIZE // 2)
        if len(readings) < times:
            path.write_bytes(NEW)  # as many bytes as before
            os.utime(path, ns=(0, len(readings) + 1))  # a clock that ticks slowly would not tell
        readings.append(half + whole(file, max_bytes))
        return readings[-1]

    monkeypatch.setattr(module, "_content", content)
    monkeypatch.setattr(module, "_PAUSE", 0)
    return readings


def test_what_changes_at_the_same_length_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = changed_at_half(path, monkeypatch, times=1)
    assert read_bytes(os.fsencode(path), max_bytes=SIZE) == NEW
    assert readings == [OLD[: SIZE // 2] + NEW[SIZE // 2 :], NEW]


def test_what_changes_each_time_is_unreadable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_at_half(path, monkeypatch, times=1000)
    with pytest.raises(ImageError, match="the file keeps changing while it is read") as caught:
        read_bytes(os.fsencode(path), max_bytes=SIZE)
    assert caught.value.reason == "unreadable"
