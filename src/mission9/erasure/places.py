"""What an erasure does in a folder and in a bucket: copies, old versions, and everything that is to be searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mission9.disk.files import files_in, remove_folder
from mission9.disk.scratch import clear_scratch, scratch_folder
from mission9.erasure.remake import Holds, Standing
from mission9.errors import OutputError
from mission9.output.folder import STATE, Output
from mission9.places import result_here
from mission9.s3.address import Address, is_s3


def copy_of_standing(output: Output, place: str, is_erased: Holds) -> Standing | None:
    """The result that stands, with what of it is erased; None where none does."""
    try:
        return Standing.of(result_here(place) if is_s3(place) else output.root, is_erased)
    except OutputError:
        return None


def forget_copies(place: str) -> None:
    """Delete the copies of results that this user has of a bucket, and what processes that were killed left."""
    clear_scratch()
    if is_s3(place):
        from mission9.s3.mirror import mirror_of

        remove_folder(mirror_of(Address.of(place), "results"))
        remove_folder(mirror_of(Address.of(place), "model"))


class Unseen(NamedTuple):
    """How much a bucket keeps below an output that no listing shows: versions and delete markers, and uploads."""

    versions: int = 0
    uploads: int = 0


def delete_unseen(place: str) -> Unseen:
    """Delete old versions, and uploads that never ended; how many there were."""
    if not is_s3(place):
        return Unseen()
    from mission9.s3.versions import abort, delete_versions, old_versions_below, unfinished_below

    address = Address.of(place)
    versions, uploads = old_versions_below(address), unfinished_below(address)
    delete_versions(address.bucket, versions)
    abort(address.bucket, uploads)
    return Unseen(len(versions), len(uploads))


def is_unseen_left(place: str) -> bool:
    """Whether any of that is left."""
    if not is_s3(place):
        return False
    from mission9.s3.versions import old_versions_below, unfinished_below

    address = Address.of(place)
    # Directly in the state lie the lock, which leaves a version each time it is renewed, and what names no image.
    state = f"{(address / STATE).key}/"
    keys = [key for key, *_ in old_versions_below(address)]
    versions = [key for key in keys if not key.startswith(state) or "/" in key.removeprefix(state)]
    return bool(versions or unfinished_below(address))


def files_to_search(output: Output, place: str) -> Iterator[tuple[str, Path]]:
    """Every file of an output, with what to call it; an object is here for as long as its turn lasts."""
    for file in _below(output.root):
        yield str(file), file
    if not is_s3(place):
        return
    from mission9.s3.listings import list_below
    from mission9.s3.objects import fetch

    address = Address.of(place)
    with scratch_folder() as scratch:
        for page in list_below(address):
            for found in page:
                file = scratch / f"object{Path(found.key).suffix}"
                fetch(Address(address.bucket, found.key), file)
                yield f"s3://{address.bucket}/{found.key}", file


def _below(folder: Path) -> Iterator[Path]:
    """The files below a folder, those under private names too."""
    for path in files_in(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        elif path.is_file():
            yield path
