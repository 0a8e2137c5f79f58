"""Read, write, copy and delete objects; errors are one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mission9.concurrency.watchdog import progress
from mission9.errors import Mission9Error, StorageError
from mission9.storage.local.files import atomic_path, open_to_write
from mission9.storage.retry import retry
from mission9.storage.s3.address import Address
from mission9.storage.s3.client import AT_ONCE, PATIENCE, store_of
from mission9.storage.s3.errors import ErrorKind, error_kind, translate_errors
from mission9.storage.s3.raw_keys import can_be_used, is_odd, odd_head, odd_read

Item = TypeVar("Item")
Found = TypeVar("Found")


# The size of a chunk of a download, held in memory twice, and of a part of an upload, 5 MB. `AT_ONCE` files use them.
_PIECE, _PIECES_AT_ONCE = 2 * 1024 * 1024, 2

# Retries of a truncated body: how many, after how many seconds.
_TRIES, _PAUSE = 6, 0.2


@dataclass(frozen=True)
class ObjectInfo:
    """An object, as a listing describes it."""

    key: str
    size: int
    modified: datetime
    etag: str

    @staticmethod
    def of(facts: Any) -> ObjectInfo:
        """Convert obstore's description."""
        return ObjectInfo(facts["path"], facts["size"], facts["last_modified"], facts["e_tag"] or "")


class TooLarge(Exception):
    """An object exceeds the size limit."""


class TruncatedBody(Exception):
    """A body was truncated."""


def read(address: Address, most: int) -> bytes:
    """An object's content, of at most `most` bytes, by one request; never truncated.

    Raises:
        TooLarge: it is larger.
        TruncatedBody: the body was truncated, on every retry.
        Exception: obstore's own.
    """
    return tried(partial(_read, address, most))


def get(address: Address, most: int, kind: type[Mission9Error] = StorageError) -> bytes:
    """An object's content.

    Raises:
        Mission9Error: (`kind`) it cannot be read, or is larger.
    """
    try:
        with translate_errors(address, kind):
            return read(address, most)
    except (TooLarge, TruncatedBody) as error:
        raise kind(f"{address} cannot be used: {error}") from error


def get_or_none(address: Address, most: int) -> bytes | None:
    """An object's content; None if it does not exist.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return get(address, most)
    except StorageError as error:
        if is_gone(error):
            return None
        raise


def fetch(address: Address, file: Path) -> None:
    """Download an object to a file, which appears whole.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with translate_errors(address):
            tried(partial(_fetch, address, file))
    except TruncatedBody as error:
        raise StorageError(f"{address} cannot be read: {error}") from error


def is_gone(error: Mission9Error) -> bool:
    """Return True if an error means that the object does not exist."""
    return _trouble_behind(error) == "gone"


def is_unknown(error: Mission9Error) -> bool:
    """Return True if an error means that the server does not support the request."""
    return _trouble_behind(error) == "unknown request"


def _trouble_behind(error: Mission9Error) -> ErrorKind | None:
    return error_kind(error.__cause__) if isinstance(error.__cause__, Exception) else None


def tried(once: Callable[[], Found]) -> Found:
    """Call `once`, retrying truncated bodies and the errors that the client does not retry itself.

    For idempotent requests only, and for at most a minute.
    """
    pauses = [_PAUSE * 2**attempt for attempt in range(_TRIES - 1)]
    return retry(once, _is_transient, pauses, timeout=PATIENCE.total_seconds())


def _is_transient(error: Exception) -> bool:
    return isinstance(error, TruncatedBody) or error_kind(error) == "unavailable"


def _read(address: Address, most: int) -> bytes:
    body, size = _asked(address)
    if size > most:
        raise TooLarge(f"{size} bytes exceed the limit of {most}")
    return b"".join(_pieces(body, size))


def _fetch(address: Address, file: Path) -> None:
    body, size = _asked(address)
    with atomic_path(file) as whole, open_to_write(whole) as out:
        for piece in _pieces(body, size):
            out.write(piece)


def _asked(address: Address) -> tuple[Iterator[Any], int]:
    """The body of an object, chunk by chunk, and its size in bytes."""
    import obstore

    if is_odd(address.key) and can_be_used():
        return odd_read(address)
    found = obstore.get(store_of(address.bucket), address.key)
    return iter(found.stream(min_chunk_size=_PIECE)), found.meta["size"]


def _pieces(stream: Iterator[Any], size: int) -> Iterator[bytes]:
    """The complete body of an answer, chunk by chunk.

    Raises:
        TruncatedBody: the body was truncated.
    """
    came = 0
    while True:
        try:
            piece = bytes(next(stream))
        except StopIteration:
            break
        except Exception as error:  # clients raise all kinds of errors while a body is read
            raise TruncatedBody(f"the body was truncated after {came} of {size} bytes") from error
        progress()
        came += len(piece)
        yield piece
    if came != size:
        raise TruncatedBody(f"the body was truncated after {came} of {size} bytes")


def put(address: Address, content: bytes | Path) -> None:
    """Write an object from bytes or a file; readers see the complete new content or the old one.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with translate_errors(address):
            tried(partial(_put, address, content))
    except TruncatedBody as error:
        raise StorageError(f"{address} cannot be written: {error}") from error
    progress()


def _put(address: Address, content: bytes | Path) -> None:
    import obstore

    try:
        obstore.put(store_of(address.bucket), address.key, content, max_concurrency=_PIECES_AT_ONCE)
    except Exception as error:
        # The parts of a large file, which were completed although half of the answer was lost.
        if error_kind(error) == "gone":
            raise TruncatedBody("the upload's parts disappeared before its end") from error
        raise


def put_new(address: Address, content: bytes, kind: type[Mission9Error] = StorageError) -> bool:
    """Create an object only if absent; return True if it was.

    A lost answer is retried, and may then report this very content as existing: its reader must compare.

    Raises:
        Mission9Error: (`kind`) it cannot be written.
    """
    import obstore

    try:
        with translate_errors(address, kind):
            tried(partial(obstore.put, store_of(address.bucket), address.key, content, mode="create"))
    except kind as error:
        if _trouble_behind(error) == "there":
            return False
        raise
    return True


def copy(source: Address, target: Address) -> None:
    """Copy an object to a second key, within the server.

    Raises:
        StorageError: it cannot be copied.
    """
    import obstore

    with translate_errors(source):
        tried(partial(obstore.copy, store_of(source.bucket), source.key, target.key))


def delete(addresses: Iterable[Address]) -> None:
    """Delete objects; absent ones are ignored.

    Raises:
        StorageError: one cannot be deleted.
    """
    import obstore

    by_bucket: dict[str, list[str]] = {}
    for address in addresses:
        by_bucket.setdefault(address.bucket, []).append(address.key)
    for bucket, keys in by_bucket.items():
        with translate_errors(Address(bucket, keys[0])):
            tried(partial(obstore.delete, store_of(bucket), keys))


def head(address: Address, kind: type[Mission9Error] = StorageError) -> ObjectInfo | None:
    """The description of one object; None if it does not exist.

    Raises:
        Mission9Error: (`kind`) the server does not answer.
    """
    try:
        return head_existing(address, kind)
    except kind as error:
        if is_gone(error):
            return None
        raise


def head_existing(address: Address, kind: type[Mission9Error] = StorageError) -> ObjectInfo:
    """The description of one object, which must exist.

    Raises:
        Mission9Error: (`kind`) it does not exist, or the server does not answer.
    """
    with translate_errors(address, kind):
        return ObjectInfo.of(tried(partial(_head, address)))


def _head(address: Address) -> Any:
    import obstore

    if is_odd(address.key) and can_be_used():
        return odd_head(address)
    return obstore.head(store_of(address.bucket), address.key)


def map_concurrent(work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """Apply `work` to `items`, concurrently and in order; the first error ends it."""
    if not items:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
        futures = [pool.submit(partial(work, item)) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
