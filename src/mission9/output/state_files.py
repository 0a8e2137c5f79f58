"""Small files of an output's state, which every run and command must know: in the folder, or in the bucket itself."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mission9.disk.files import files_in, make_folder, read_whole, write_whole


class StateFiles(Protocol):
    """Files by their name below the state of an output; each is written whole."""

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Make a file, or put it in the place of one."""

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder, sorted."""


class FolderState:
    """The state of an output in a folder."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def read(self, name: str) -> bytes | None:
        try:
            return read_whole(self._state / name)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        make_folder((self._state / name).parent)
        write_whole(self._state / name, content)

    def names(self, folder: str) -> list[str]:
        place = self._state / folder
        return sorted(file.name for file in files_in(place) if file.name[0] != ".") if place.is_dir() else []
