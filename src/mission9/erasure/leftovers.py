"""The steps of an erasure that differ between a folder and a bucket: copies, old versions, all that is searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mission9.erasure.rebuild import CurrentResult, Holds
from mission9.errors import OutputError
from mission9.output.layout import STATE
from mission9.output.local import Output
from mission9.output.open import result_here
from mission9.storage.local.files import files_in, remove_folder
from mission9.storage.local.scratch import clear_scratch, scratch_folder
from mission9.storage.s3.address import Address, is_s3


def copy_of_standing(output: Output, place: str, is_erased: Holds) -> CurrentResult | None:
    """The result that stands, with what of it is erased; None where none does."""
    try:
        return CurrentResult.of(result_here(place) if is_s3(place) else output.root, is_erased)
    except OutputError:
        return None


def forget_copies(place: str) -> None:
    """Delete the copies of results that this user has of a bucket, and what processes that were killed left."""
    clear_scratch()
    if is_s3(place):
        from mission9.output.bucket.mirror import mirror_of

        remove_folder(mirror_of(Address.of(place), "results"))
        remove_folder(mirror_of(Address.of(place), "model"))


class HiddenData(NamedTuple):
    """Counts of what a bucket keeps below an output that no listing shows: versions and delete markers, and uploads."""

    versions: int = 0
    uploads: int = 0


def delete_unseen(place: str) -> HiddenData:
    """Delete old versions, and uploads that never ended; how many there were."""
    if not is_s3(place):
        return HiddenData()
    from mission9.storage.s3.versions import abort, delete_versions, old_versions_below, unfinished_below

    address = Address.of(place)
    versions, uploads = old_versions_below(address), unfinished_below(address)
    delete_versions(address.bucket, versions)
    abort(address.bucket, uploads)
    return HiddenData(len(versions), len(uploads))


def is_unseen_left(place: str) -> bool:
    """Tell whether any of that is left."""
    if not is_s3(place):
        return False
    from mission9.storage.s3.versions import old_versions_below, unfinished_below

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
    from mission9.storage.s3.listing import list_below
    from mission9.storage.s3.objects import fetch

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
