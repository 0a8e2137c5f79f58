"""Every file of an output, for a search of what may be left of an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mission9.output.local import Output
from mission9.output.place import OutputPlace
from mission9.storage.local.files import files_in


def files_to_search(output: Output, place: OutputPlace) -> Iterator[tuple[str, Path]]:
    """Every file of an output, with what to call it; an object is here for as long as its turn lasts."""
    for file in _below(output.root):
        yield str(file), file
    yield from place.objects()


def _below(folder: Path) -> Iterator[Path]:
    """The files below a folder, those under private names too."""
    for path in files_in(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        elif path.is_file():
            yield path
