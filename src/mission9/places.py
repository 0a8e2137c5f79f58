"""What users name is a folder, a file, or an address in a bucket; here it becomes what the code works on.

Modules of buckets are loaded only where there is an address.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mission9.errors import OutputError
from mission9.output.page_file import PAGE
from mission9.output.state_files import StateFiles
from mission9.s3.address import Address, is_s3
from mission9.urls import is_url, store_url, without_file


def real_root(place: str) -> str:
    """Where images lie, the same from every folder and process: a folder's own path, s3://bucket/prefix, or a URL."""
    place = without_file(place)
    if is_url(place):
        return store_url(place)
    return str(Address.of(place)) if is_s3(place) else os.path.realpath(place)


def is_here(place: str) -> bool:
    """Tell whether a place is a path on this machine: to look there asks no server."""
    return not (is_s3(place) or is_url(place))


def result_here(place: str | Path, *, to_verify: bool = False) -> Path:
    """The folder of a result; of one in a bucket a copy, `to_verify` a fresh one with all that vouches for it.

    Raises:
        OutputError: the bucket holds no result there.
        StorageError: it cannot be read.
    """
    if not is_s3(place):
        return Path(place).absolute()
    from mission9.s3.copies import copy_result

    return copy_result(Address.of(str(place)), to_verify=to_verify)


def check_output(place: str) -> None:
    """Refuse where no run has written: a name that was mistyped must not pass for an output with nothing in it.

    Raises:
        OutputError: there is no output.
        StorageError: the bucket does not tell.
    """
    from mission9.output.folder import STATE

    if is_s3(place):
        from mission9.s3.copies import is_output

        is_there = is_output(Address.of(place))
    else:
        is_there = Path(place, STATE).is_dir()
    if not is_there:
        raise OutputError(f"there is no output of mission9 in {place}: give the folder, or prefix, of the results")


def state_of(place: str) -> tuple[StateFiles, dict[str, Any]]:
    """Small files of the state of an output, and the report of the result that stands; empty if none does.

    Raises:
        OutputError: there is no output.
        StorageError: it cannot be read.
    """
    from mission9.output.folder import STATE, Output

    check_output(place)
    if not is_s3(place):
        output = Output(Path(place).absolute())
        return output.state_files, output.last_report()
    from mission9.s3.copies import last_report
    from mission9.s3.state import BucketState

    address = Address.of(place)
    return BucketState(address / STATE), last_report(address)


def model_here(place: str | Path) -> Path:
    """The folder of a PCA model; of one in a bucket a copy.

    Raises:
        ModelError: the bucket holds none there.
        StorageError: it cannot be read.
    """
    if not is_s3(place):
        return Path(place)
    from mission9.s3.copies import copy_model

    return copy_model(Address.of(str(place)))


def share_page(place: str, folder: Path) -> str:
    """Put the page in the folder that `result_here` gave where the result is, and tell where that is."""
    if not is_s3(place):
        return str(Path(place, PAGE))
    from mission9.s3.copies import put_page

    return str(put_page(Address.of(place), folder))


def page_place(place: str, run_id: str) -> str | None:
    """Where the report of a run that has just ended is, for people to open; None where it has none."""
    if not is_s3(place):
        page = Path(place, PAGE)
        return str(page) if page.exists() else None
    from mission9.s3.copies import page_of

    return page_of(Address.of(place), run_id)
