"""Names of folders -> their meaning: splits, folders of tools, results; the same rules for every source of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import get_args

from mission9.errors import InputError
from mission9.options import SplitsFrom
from mission9.schema import NO_SPLIT, TEST, TRAINING, VALIDATION

SPLITS_FROM = get_args(SplitsFrom)

# The names recognized by Hugging Face's hub.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}
# Words that may be added to one, as in training_set.
_FILLERS = {"set", "data", "images", "split"}
_WORDS = re.compile(r"[^\W\d_]+")

# Folders created by programs, compared without case.
# fmt: off
_OF_TOOLS = frozenset({
    # version control, and related tools
    ".git", ".hg", ".svn", ".bzr", "_darcs", ".jj", ".dvc", ".github", ".gitlab", ".circleci", ".devcontainer",
    # notebooks, editors, Python, packages
    ".ipynb_checkpoints", ".virtual_documents", ".idea", ".vscode", ".vs", ".settings", "__pycache__", ".venv", ".tox",
    ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules", ".cache", ".config", ".local",
    # systems, disks, storage at home
    "__macosx", ".trash", ".trashes", ".spotlight-v100", ".fseventsd", ".temporaryitems", ".documentrevisions-v100",
    ".appledouble", ".appledb", ".appledesktop", "$recycle.bin", "recycler", "system volume information", "lost+found",
    "found.000", ".snapshot", ".snapshots", ".zfs", "#snapshot", "@recently-snapshot", "#recycle", "@recycle", "@eadir",
    # previews, and backups
    ".thumbnails", ".thumbs", ".thumb", "@__thumb", ".@__thumb", ".xvpics", ".picasaoriginals", ".dropbox",
    ".dropbox.cache", ".huggingface", ".tmp.drivedownload", ".tmp.driveupload", ".sync", ".stfolder", ".stversions",
})
# fmt: on

# The folder of a result's state; the result that contains it is counted as one entry.
STATE, RESULTS = "_state", "(result of mission9)"

_DEEPEST = 5  # levels of single folders in which a dataset may be wrapped

# Returns the folders in a folder, and True if the folder contains an image directly.
Look = Callable[[Sequence[str]], tuple[Sequence[str], bool]]


@lru_cache(maxsize=4096)
def split_named(name: str) -> str | None:
    """The split that a folder's name means: Training for "train", "Training ", "train_set"; None for other names."""
    words = [word for word in _WORDS.findall(name.lower()) if word not in _FILLERS]
    return _SPLIT_NAMES.get(words[0]) if len(words) == 1 else None


@lru_cache(maxsize=4096)
def is_of_tools(name: str) -> bool:
    """Return True if a folder's name is one that programs use for themselves."""
    return name.lower() in _OF_TOOLS or name.startswith(".Trash-")


def tools_folder(folders: Sequence[str]) -> str | None:
    """The category of files in the first folder of tools on a path; None if there is none."""
    return next((f"{name}/" for name in folders if is_of_tools(name)), None)


@dataclass(frozen=True)
class Layout:
    """The folders of splits, by name, with their splits; they are in the folder path `above`.

    `label_level` selects the folder of the label: 1 for the first below the split's, or below `above` without splits.
    """

    above: tuple[str, ...] = ()
    splits: tuple[tuple[str, str], ...] = ()
    label_level: int | None = None

    def split_of(self, folders: Sequence[str]) -> str:
        """The split of files in a folder path, given from the top down."""
        depth = len(self.above)
        if len(folders) > depth and tuple(folders[:depth]) == self.above:
            return dict(self.splits).get(folders[depth], NO_SPLIT)
        return NO_SPLIT

    def label_of(self, folders: Sequence[str], top: str) -> str:
        """The label of files in a folder path, given from the top down; `top` is the name of the root folder.

        It is the file's own folder, if there is no `label_level` or the path is shorter.
        """
        if self.label_level is None or not folders:
            return folders[-1] if folders else top
        depth = len(self.above)
        above = depth if tuple(folders[:depth]) == self.above else 0
        level = above + (self.split_of(folders) != NO_SPLIT) + self.label_level
        return folders[min(level, len(folders)) - 1]

    def is_next_to_splits(self, folders: Sequence[str]) -> bool:
        """Return True if a folder path contains the splits' folders."""
        return bool(self.splits) and tuple(folders) == self.above

    def __str__(self) -> str:
        if not self.splits:
            return "no folders of splits: every image is of one split, all"
        way = "".join(f"{name}/" for name in self.above)
        return ", ".join(f"{split} from {way}{name}/" for name, split in self.splits)


@dataclass
class Strays:
    """Split-like folders below the levels that were searched: the first one found for each split."""

    folders: dict[str, str] = field(default_factory=dict)
    _last: str | None = None

    def note(self, folder: str) -> None:
        """Check the folder of an image outside any split."""
        if folder == self._last:
            return
        self._last = folder
        names = folder.split("/")
        for depth, name in enumerate(names):
            if split := split_named(name):
                self.folders.setdefault(split, "/".join(names[: depth + 1]))

    def check(self, place: str) -> None:
        """Refuse a Training folder next to another split below the searched levels: all would be fitted on.

        Raises:
            InputError: the splits are ambiguous.
        """
        if TRAINING in self.folders and len(self.folders) > 1:
            told = " and ".join(f"{folder}/" for folder in self.folders.values())
            above = self.folders[TRAINING].rpartition("/")[0]
            raise InputError(
                f"{told} in {place} look like splits, below other folders: pass --input {place.rstrip('/')}/{above}, "
                "or --splits none if these are labels"
            )


def layout_of(place: str, look: Look, splits_from: SplitsFrom, label_level: int | None = None) -> Layout:
    """Find the folders of splits: at the top, or at the first level with more than one folder.

    Raises:
        InputError: they may be splits or labels.
    """
    above: tuple[str, ...] = ()
    while True:
        found, has_images = look(above)
        folders = sorted(name for name in found if not is_of_tools(name))
        splits = {name: split for name in folders if (split := split_named(name))} if splits_from != "none" else {}
        if splits:
            if splits_from == "auto":
                _check_are_clear(place, above, splits, [name for name in folders if name not in splits])
            return Layout(above, tuple(splits.items()), label_level)
        if len(folders) != 1 or has_images or len(above) == _DEEPEST:
            return Layout(above, label_level=label_level)
        above = (*above, folders[0])


def _check_are_clear(place: str, above: Sequence[str], splits: Mapping[str, str], others: Sequence[str]) -> None:
    where = "/".join([place.rstrip("/"), *above])
    for split, count in Counter(splits.values()).items():
        if count > 1:
            told = " and ".join(f"{name}/" for name in splits if splits[name] == split)
            raise InputError(
                f"{told} in {where} both mean {split}: rename or move one, or pass --splits folders to use both, "
                "or --splits none if they are labels"
            )
    if others and len(splits) == 1:
        (name, split), *_ = splits.items()
        beside = ", ".join(f"{other}/" for other in others[:3]) + (", ..." if len(others) > 3 else "")
        raise InputError(
            f"{name}/ in {where} may be a label or split {split}, next to {beside}: pass --splits none "
            "for a label, or --splits folders for a split"
        )
