"""Unpack an archive into a folder of images with a record of their origin; it appears when it is complete."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from mission9._package import __version__
from mission9.datasets.fetch.archive import Bomb, Unreadable, contents, entries, translate_damage
from mission9.datasets.fetch.check_entries import Checked, checked
from mission9.datasets.fetch.find_layout import Folder, Variant, find_layout
from mission9.datasets.fetch.kaggle import DATASET, VERSION, dataset_page, download
from mission9.errors import ConservationError, InputError, OutputError, StorageError
from mission9.sources import find_root
from mission9.sources.layout import split_named
from mission9.sources.list_images import list_images
from mission9.sources.listing import Listing, ListingCounts
from mission9.storage.local.errors import translate_errors
from mission9.storage.local.files import file_sha256, make_folder, remove_folder, sync_file_system, write_atomic
from mission9.storage.local.lock import sign, take_lock
from mission9.storage.local.names import IMAGE_EXTENSIONS, to_text
from mission9.storage.local.untrusted import read_json

logger = logging.getLogger(__name__)

# The default input of a run.
FOLDER, IMAGES = "fruits-360_dataset", "fruits-360"
SOURCE, ATTRIBUTION = "SOURCE.json", "ATTRIBUTION.md"

_WORK = ".mission9-fetch"
_NOTICES = ("licen", "readme", "copying", "notice", "attribution", "citation")
_LICENCES = "licences"  # those above the images
_PIECE = 1 << 20


@dataclass(frozen=True)
class Source:
    """The origin of images, as recorded next to them."""

    dataset: str | None
    version: int | None
    page: str | None
    archive: str
    archive_sha256: str
    archive_bytes: int
    folder: str
    images: dict[str, int]
    licence_files: list[str]
    fetched: str
    made_by: str


@dataclass(frozen=True)
class Fetched:
    """A folder of images, and their origin; `is_new` is True if this call created the folder."""

    images: Path
    source: Source
    is_new: bool


def fetch_dataset(
    output: Path, *, archive: Path | None = None, version: int = VERSION, variant: Variant | None = None
) -> Fetched:
    """Place Fruits-360 from Kaggle, or the contents of an archive, in `output`/fruits-360_dataset/fruits-360.

    Raises:
        InputError: the archive is refused as a whole, holds no such dataset, or Kaggle does not know the version.
        OutputError: the folder already holds other images.
        SetupError: kagglehub is missing, or Kaggle cannot be reached.
        StorageError: a disk fails, or is full.
    """
    if archive is not None and not archive.is_file():
        raise InputError(f"there is no archive {archive}; give a .zip, .tar or .tar.gz file")
    with translate_errors(output), _locked(output) as work:
        digest = file_sha256(archive) if archive is not None else None
        file = archive or work / f"{DATASET.replace('/', '-')}-{version}.zip"
        source = _there(output, digest, version, variant)
        is_new = source is None
        if source is None:
            if archive is None:
                download(version, file)
            source = _unpack(file, work / "new", variant, None if archive is not None else version)
            sync_file_system(work)  # the folder is on the disk before it appears, in case the machine fails
            os.rename(work / "new", output / FOLDER)
            sync_file_system(output)  # before the archive is deleted
        if archive is None:
            file.unlink(missing_ok=True)  # also if an earlier call was killed before this step
    return Fetched(output / FOLDER / IMAGES, source, is_new)


@contextmanager
def _locked(output: Path) -> Iterator[Path]:
    """A working folder for this call alone; an interrupted download stays in it for the next call."""
    work = output / _WORK
    is_new = not output.exists()
    with take_lock(work / "lock", f"another is fetching into {output}") as lock:
        sign(lock)
        remove_folder(work / "new")
        try:
            yield work
        finally:
            remove_folder(work / "new")
            if os.listdir(work) == ["lock"]:
                remove_folder(work)
                if is_new and not os.listdir(output):
                    output.rmdir()


def _there(output: Path, digest: str | None, version: int, variant: Variant | None) -> Source | None:
    """The origin of the images that already exist, if they are the requested ones; None if there are none.

    Raises:
        OutputError: they are others, or of unknown origin.
    """
    folder = output / FOLDER
    if not os.path.lexists(folder):
        return None
    try:
        source = Source(**read_json(folder / SOURCE))
    except (OSError, ValueError, TypeError):
        raise OutputError(f"{folder} exists, without a note of its origin: move it, or give another --output") from None
    is_same = source.archive_sha256 == digest if digest else (source.dataset, source.version) == (DATASET, version)
    is_original = "original" in source.folder.lower()
    if not is_same or (variant is not None and is_original != (variant == "original")):
        what = f"version {source.version}" if source.version else source.archive
        what += f", its folder {source.folder}" if source.folder else ""
        raise OutputError(f"{folder} exists, from {what}: move it, or give another --output")
    return source


def _unpack(file: Path, new: Path, variant: Variant | None, version: int | None) -> Source:
    """Unpack an archive into the folder `new`, with the record of its origin.

    Raises:
        InputError: the archive is refused.
    """
    size = file.stat().st_size
    try:
        found = list(checked(entries(file), size))
        found = _without_mac_files(found)
        layout = find_layout((path for path, _ in found), variant)
    except Unreadable:
        raise
    except (InputError, Bomb) as error:
        raise InputError(f"{file} is refused: {error}") from error
    chosen = _chosen(found, layout)
    _check_room(new.parent, sum(entry.entry.size for entry in chosen.values()), file)
    logger.info("fetch: %s files of %s in %s", f"{len(chosen):,}", "/".join(layout) or "its top", file.name)
    tells = _write(file, new, chosen, layout)
    images = _count(new / IMAGES, sum(path[: len(layout)] == layout for path, _ in chosen.values()))
    source = Source(
        dataset=DATASET if version else None,
        version=version,
        page=dataset_page(version) if version else None,
        archive=to_text(os.fsencode(file.name)),
        archive_sha256=file_sha256(file),
        archive_bytes=size,
        folder="/".join(layout),
        images=images,
        licence_files=tells,
        fetched=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        made_by=f"mission9 {__version__}",
    )
    write_atomic(new / SOURCE, (json.dumps(asdict(source), indent=2, ensure_ascii=False) + "\n").encode())
    write_atomic(new / ATTRIBUTION, _attribution(source).encode())
    return source


def _chosen(found: list[Checked], layout: Folder) -> dict[str, Checked]:
    """The entries to unpack, by name: files below the layout, and above it those that state author and licence.

    A folder of images next to Training and Test stays in the archive: it is part of neither, and a run would list it.
    """
    beside = Counter(
        checked.path[len(layout)]
        for checked in found
        if _is_below(checked, layout) and _is_in_other_folder(checked.path, layout)
    )
    for folder, images in sorted(beside.items()):
        logger.info("fetch: %s stays in the archive, with %s images of no split", folder, f"{images:,}")
    return {
        checked.entry.name: checked
        for checked in found
        if (_is_below(checked, layout) and checked.path[len(layout)] not in beside) or _is_notice(checked.path, layout)
    }


def _is_below(checked: Checked, layout: Folder) -> bool:
    return checked.path[: len(layout)] == layout


def _is_in_other_folder(path: Folder, layout: Folder) -> bool:
    """True if a file below the layout is an image in a folder that is not a split."""
    below = path[len(layout) :]
    extension = os.path.splitext(below[-1])[1].lower()
    return len(below) > 1 and split_named(below[0]) is None and extension in IMAGE_EXTENSIONS


def _without_mac_files(found: list[Checked]) -> list[Checked]:
    """The files without those that macOS adds to them: __MACOSX/, .DS_Store, and ._NAME next to NAME."""
    paths = {checked.path for checked in found}
    kept = [checked for checked in found if not _is_of_mac(checked.path, paths)]
    if left := len(found) - len(kept):
        logger.info("fetch: %s files of macOS stay in the archive (__MACOSX, .DS_Store, ._ names)", f"{left:,}")
    return kept


def _is_of_mac(path: Folder, paths: set[Folder]) -> bool:
    name = path[-1]
    is_double = name.startswith("._") and (*path[:-1], name[2:]) in paths
    return "__MACOSX" in path or name == ".DS_Store" or is_double


def _is_notice(path: Folder, layout: Folder) -> bool:
    folder, name = path[:-1], path[-1].lower()
    return folder == layout[: len(folder)] and name.startswith(_NOTICES)


def _check_room(folder: Path, needed: int, file: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{file.name} unpacks to {needed / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB free: make room, "
            "or give another --output"
        )


def _write(file: Path, new: Path, chosen: dict[str, Checked], layout: Folder) -> list[str]:
    """Write the chosen files; return the names of those that state author and licence.

    Raises:
        InputError: a file has more or fewer bytes than the archive claims.
    """
    tells = []
    for entry, content in contents(file, chosen.__contains__):
        path = chosen[entry.name].path
        is_image = path[: len(layout)] == layout
        target = Path(new, IMAGES, *path[len(layout) :]) if is_image else Path(new, _LICENCES, *path)
        make_folder(target.parent)
        with translate_damage(file):
            _copy(content, target, chosen[entry.name].entry.size, f"{file} is refused: {entry.name!a}")
        os.utime(target, (entry.modified, entry.modified))  # the same images have the same times everywhere
        if _is_notice(path, layout):
            tells.append(str(target.relative_to(new)))
    return sorted(tells)


def _copy(content: IO[bytes], target: Path, size: int, what: str) -> None:
    written = 0
    with target.open("xb") as out:
        while piece := content.read(_PIECE):
            written += len(piece)
            if written > size:
                raise InputError(f"{what} holds more than the {size:,} bytes that it claims")
            out.write(piece)
    if written != size:
        raise InputError(f"{what} holds {written:,} of the {size:,} bytes that it claims")


def _count(images: Path, files: int) -> dict[str, int]:
    """The number of images by split, after a check that no file is missing."""
    found: ListingCounts = ListingCounts()
    splits: Counter[str] = Counter()
    for batch in list_images(find_root(str(images)), found, Listing(splits_from="folders")):
        splits.update(batch["split"].to_pylist())
    if found.total != files:
        raise ConservationError(f"{files} files were unpacked to {images}, and {found.total} are there")
    return dict(sorted(splits.items()))


def _attribution(source: Source) -> str:
    kept = "".join(f"- {name}\n" for name in source.licence_files) or "- none: the archive holds no such file\n"
    where = source.page or "https://www.kaggle.com/datasets/moltean/fruits"
    return f"""# Where these images are from

Fruits-360 dataset, Mihai Oltean, 2017-, {where}

From {source.archive}, SHA-256 {source.archive_sha256}, the folder {source.folder or "at its top"}, unchanged.

What may be done with them is said by the files that came with them:

{kept}
Editions up to 2024 are under the MIT licence, those since 2025 under CC BY-SA 4.0: name the author, say what you
changed, and share what you make of the images under the same licence.
"""
