"""A place of results by the text that a user gives for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mission9.errors import OutputError
from mission9.output.place import FolderPlace, OutputPlace
from mission9.storage.location import scheme_of
from mission9.storage.s3.address import Address


def _bucket(place: str) -> OutputPlace:
    from mission9.output.bucket.place import BucketPlace  # loads what other runs do not need

    return BucketPlace(Address.of(place))


# The stores of results by the scheme of their addresses. A new one takes an `OutputPlace`, and its name in
# `storage.location.WRITABLE`.
STORES: dict[str, Callable[[str], OutputPlace]] = {"s3": _bucket, "s3a": _bucket}


def output_at(place: str | Path) -> OutputPlace:
    """The folder, or the prefix of a bucket, of results.

    Raises:
        ConfigError: the text is no address.
    """
    store = STORES.get(scheme_of(place))
    return store(str(place)) if store else FolderPlace(Path(place))


def existing_output(place: str) -> OutputPlace:
    """The same where a run has written: a name that was mistyped must not pass for an output with nothing in it.

    Raises:
        OutputError: there is no output.
        StorageError: the bucket does not tell.
    """
    output = output_at(place)
    if not output.exists():
        raise OutputError(f"there is no output of mission9 in {place}: give the folder, or prefix, of the results")
    return output
