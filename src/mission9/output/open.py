"""Outputs and results by the names that users give them: a folder, or a prefix of a bucket.

Modules of buckets are loaded only where there is an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mission9.errors import OutputError
from mission9.output.layout import PAGE, STATE
from mission9.output.local import Output
from mission9.output.open_local import open_local_output
from mission9.storage.file_store import FileStore
from mission9.storage.s3.address import Address, is_s3


@contextmanager
def open_output(root: str, *, overwrite: bool) -> Iterator[Output]:
    """The output folder, or prefix of a bucket, as `open_local_output` gives it.

    Raises:
        OutputError: it is a file, cannot be written, holds files of others, or another run is writing it.
    """
    if is_s3(root):
        from mission9.output.bucket.output import open_bucket_output  # loads what other runs do not need

        with open_bucket_output(Address.of(root), overwrite=overwrite) as there:
            yield there
        return
    with open_local_output(Path(root), overwrite=overwrite) as output:
        yield output


def result_here(place: str | Path, *, to_verify: bool = False) -> Path:
    """The folder of a result; of one in a bucket a copy, `to_verify` a fresh one with all that vouches for it.

    Raises:
        OutputError: the bucket holds no result there.
        StorageError: it cannot be read.
    """
    if not is_s3(place):
        return Path(place).absolute()
    from mission9.output.bucket.results import copy_result

    return copy_result(Address.of(str(place)), to_verify=to_verify)


def check_output(place: str) -> None:
    """Refuse where no run has written: a name that was mistyped must not pass for an output with nothing in it.

    Raises:
        OutputError: there is no output.
        StorageError: the bucket does not tell.
    """
    if is_s3(place):
        from mission9.output.bucket.results import is_output

        is_there = is_output(Address.of(place))
    else:
        is_there = Path(place, STATE).is_dir()
    if not is_there:
        raise OutputError(f"there is no output of mission9 in {place}: give the folder, or prefix, of the results")


def state_of(place: str) -> tuple[FileStore, dict[str, Any]]:
    """Small files of the state of an output, and the report of the result that stands; empty if none does.

    Raises:
        OutputError: there is no output.
        StorageError: it cannot be read.
    """
    check_output(place)
    if not is_s3(place):
        output = Output(Path(place).absolute())
        return output.state_files, output.last_report()
    from mission9.output.bucket.results import last_report
    from mission9.storage.file_store import BucketStore

    address = Address.of(place)
    return BucketStore(address / STATE), last_report(address)


def model_here(place: str | Path) -> Path:
    """The folder of a PCA model; of one in a bucket a copy.

    Raises:
        ModelError: the bucket holds none there.
        StorageError: it cannot be read.
    """
    if not is_s3(place):
        return Path(place)
    from mission9.output.bucket.results import copy_model

    return copy_model(Address.of(str(place)))


def share_page(place: str, folder: Path) -> str:
    """Put the page in the folder that `result_here` gave where the result is, and tell where that is."""
    if not is_s3(place):
        return str(Path(place, PAGE))
    from mission9.output.bucket.results import put_page

    return str(put_page(Address.of(place), folder))


def page_place(place: str, run_id: str) -> str | None:
    """Return where the report of a run that has just ended is, for people to open; None where it has none."""
    if not is_s3(place):
        page = Path(place, PAGE)
        return str(page) if page.exists() else None
    from mission9.output.bucket.results import page_of

    return page_of(Address.of(place), run_id)
