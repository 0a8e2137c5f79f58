"""The settings of a listing, its counts, and the rules shared by all sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from itertools import islice
from typing import TYPE_CHECKING, ParamSpec

import pyarrow as pa

from mission9.errors import InputError
from mission9.options import SplitsFrom
from mission9.schema import LISTING, NO_SPLIT, TRAINING
from mission9.sources.layout import Layout, Look, Strays, layout_of, split_named
from mission9.storage.local.names import IMAGE_EXTENSIONS, to_text

if TYPE_CHECKING:
    from mission9.config import RunConfig


# A PCA is fitted on the first of these splits that has images.
FITTING = (TRAINING, NO_SPLIT)


_LINK = "(link)"  # counted in place of an extension: a link that is not followed


BATCH_ROWS = 10_000

# Path, split, label, size in bytes, and modification time in nanoseconds since 1970.
Row = tuple[str, str, str, int, int]
Given = ParamSpec("Given")


_MAX_LINKS = 5  # reported by name


@dataclass(frozen=True)
class Listing:
    """The settings of a listing: all files or images only, a folder to exclude, the meaning of folders, and links.

    `all_files` includes the folders of tools. With `follow_links`, links out of the root are followed.
    """

    all_files: bool = False
    exclude: str = ""
    splits_from: SplitsFrom = "auto"
    follow_links: bool = False
    label_level: int | None = None

    @staticmethod
    def of(config: RunConfig, exclude: str = "") -> Listing:
        """The listing for a run's settings."""
        return Listing(config.all_files, exclude, config.splits, config.follow_links, config.label_level)

    def layout(self, place: str, look: Look) -> Layout:
        """The meaning of the folders, from `layout_of`."""
        return layout_of(place, look, self.splits_from, self.label_level)


USUAL = Listing()


@dataclass
class ListingCounts:
    """The counts of a listing: images by split, other files by extension or folder of tools, and links by path.

    A pack has no `layout`: its splits are those of its source.
    """

    listed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    layout: Layout | None = None
    links: list[str] = field(default_factory=list)
    strays: Strays = field(default_factory=Strays)

    def add_image(self, split: str, folder: str) -> None:
        """Count a listed image in a folder."""
        self.listed[split] += 1
        if split == NO_SPLIT and self.layout and not self.layout.splits:
            self.strays.note(folder)

    @property
    def understood(self) -> str:
        """The folders used as splits, as text."""
        return str(self.layout or "splits as in the pack")

    def skip_link(self, path: str) -> None:
        """Count a link that is not followed; one with a split's name is always recorded."""
        self.skipped[_LINK] += 1
        if len(self.links) < _MAX_LINKS or split_named(path.rpartition("/")[2]):
            self.links.append(path)

    @property
    def total(self) -> int:
        return self.listed.total() + self.skipped.total()

    def in_brackets(self, *, folders_only: bool = False) -> str:
        """The skipped files as text for a message, the most frequent first; empty if there are none."""
        told = [(name, count) for name, count in self.skipped.most_common() if not folders_only or name[-1] in "/)"]
        words = ", ".join(f"{count:,} {name}" for name, count in told[:5]) + (", ..." if len(told) > 5 else "")
        return f" ({words})" if words else ""


def fitting_split(images: Mapping[str, int]) -> str:
    """The split to fit a PCA on, from the numbers of images by split: Training, else images without a split.

    Raises:
        InputError: there is no such split.
    """
    for split in FITTING:
        if images.get(split):
            return split
    raise InputError(
        f"there are images of {', '.join(images) or 'no split'}, but none of Training to fit the PCA on: add a folder "
        "Training, or pass --pca-model of an earlier run"
    )


def has_image_name(name: bytes) -> bool:
    """Return True if a file's name has the extension of an image."""
    return _extension(name[name.rfind(b".") :]) in IMAGE_EXTENSIONS if b"." in name else False


def skipped_as(name: bytes, *, next_to_splits: bool) -> str | None:
    """The extension under which a file is skipped; None if it is listed."""
    if name.startswith(b"._"):  # a companion file of macOS on other file systems
        return "._*"
    dot = name.rfind(b".")
    # A name like .DS_Store is only an extension.
    extension = _extension(name[dot:]) if dot >= 0 else ""
    # Files like LICENSE are found next to Training/ and Test/; elsewhere a name without extension may be an image's.
    if extension in IMAGE_EXTENSIONS or (not extension and not next_to_splits):
        return None
    return extension or "(none)"


@lru_cache(maxsize=1000)
def _extension(name: bytes) -> str:
    return to_text(name).lower()


def in_batches(lister: Callable[Given, Iterator[Row]]) -> Callable[Given, Iterator[pa.RecordBatch]]:
    """Turn a generator of rows into one of batches of `schema.LISTING`."""

    @wraps(lister)
    def batches(*args: Given.args, **kwargs: Given.kwargs) -> Iterator[pa.RecordBatch]:
        rows = lister(*args, **kwargs)
        while some := list(islice(rows, BATCH_ROWS)):
            columns = zip(*some, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, LISTING, strict=True)]
            yield pa.record_batch(arrays, schema=LISTING)

    return batches
