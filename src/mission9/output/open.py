"""Open a place of results by its user-supplied name."""

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
    """The folder, or the bucket prefix, of results.

    Raises:
        ConfigError: the text is not a valid address.
    """
    store = STORES.get(scheme_of(place))
    return store(str(place)) if store else FolderPlace(Path(place))


def existing_output(place: str) -> OutputPlace:
    """Like `output_at`, for an existing output: a mistyped name must not pass for an empty output.

    Raises:
        OutputError: there is no output.
        StorageError: the bucket does not answer.
    """
    output = output_at(place)
    if not output.exists():
        raise OutputError(f"there is no mission9 output in {place}: pass the folder or prefix of the results")
    return output
