"""Every file of an output, to search for the remains of an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mission9.output.local import Output
from mission9.output.place import OutputPlace
from mission9.storage.local.files import files_in


def files_to_search(output: Output, place: OutputPlace) -> Iterator[tuple[str, Path]]:
    """Every file of an output with its name in messages; a file copied from a bucket exists for one iteration."""
    for file in _below(output.root):
        yield str(file), file
    yield from place.objects()


def _below(folder: Path) -> Iterator[Path]:
    """The files below a folder, with those under private names."""
    for path in files_in(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        elif path.is_file():
            yield path
