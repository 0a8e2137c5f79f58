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
from mission9.storage.s3.errors import ErrorKind, error_kind, told
from mission9.storage.s3.raw_keys import can_be_used, is_odd, odd_head, odd_read

Item = TypeVar("Item")
Found = TypeVar("Found")


# Of a body that comes, in memory twice; and pieces of a file that is sent, of 5 MB each. `AT_ONCE` files have them.
_PIECE, _PIECES_AT_ONCE = 2 * 1024 * 1024, 2

# A body that ends before its time is asked for again, so often, after so many seconds.
_TRIES, _PAUSE = 6, 0.2


@dataclass(frozen=True)
class ObjectInfo:
    """An object, as a listing tells of it."""

    key: str
    size: int
    modified: datetime
    etag: str

    @staticmethod
    def of(facts: Any) -> ObjectInfo:
        """Return what obstore tells of it."""
        return ObjectInfo(facts["path"], facts["size"], facts["last_modified"], facts["e_tag"] or "")


class TooLarge(Exception):
    """An object is larger than it may be."""


class TruncatedBody(Exception):
    """A body ended before its time."""


def read(address: Address, most: int) -> bytes:
    """An object's content, of at most `most` bytes, by one request; never half of it.

    Raises:
        TooLarge: it is larger.
        Cut: it ended before its time again and again.
        Exception: as obstore raises them.
    """
    return tried(partial(_read, address, most))


def get(address: Address, most: int, kind: type[Mission9Error] = StorageError) -> bytes:
    """An object's content.

    Raises:
        Mission9Error: of that kind: it cannot be read, or is larger.
    """
    try:
        with told(address, kind):
            return read(address, most)
    except (TooLarge, TruncatedBody) as error:
        raise kind(f"{address} cannot be used: {error}") from error


def get_or_none(address: Address, most: int) -> bytes | None:
    """An object's content; None where there is none.

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
    """An object's content as a file, which appears whole.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with told(address):
            tried(partial(_fetch, address, file))
    except TruncatedBody as error:
        raise StorageError(f"{address} cannot be read: {error}") from error


def is_gone(error: Mission9Error) -> bool:
    """Tell whether what an error tells of is that there is no such object."""
    return _trouble_behind(error) == "gone"


def is_unknown(error: Mission9Error) -> bool:
    """Tell whether what an error tells of is that the server does not know what was asked for."""
    return _trouble_behind(error) == "unknown request"


def _trouble_behind(error: Mission9Error) -> ErrorKind | None:
    return error_kind(error.__cause__) if isinstance(error.__cause__, Exception) else None


def tried(once: Callable[[], Found]) -> Found:
    """Return what `once` gives; tried again where a body is cut, or the client does not try again itself.

    It does so with requests that do no harm when they are made twice, and a minute later there is no point in it.
    """
    pauses = [_PAUSE * 2**attempt for attempt in range(_TRIES - 1)]
    return retry(once, _is_transient, pauses, timeout=PATIENCE.total_seconds())


def _is_transient(error: Exception) -> bool:
    return isinstance(error, TruncatedBody) or error_kind(error) == "unavailable"


def _read(address: Address, most: int) -> bytes:
    body, size = _asked(address)
    if size > most:
        raise TooLarge(f"{size} bytes are more than {most}")
    return b"".join(_pieces(body, size))


def _fetch(address: Address, file: Path) -> None:
    body, size = _asked(address)
    with atomic_path(file) as whole, open_to_write(whole) as out:
        for piece in _pieces(body, size):
            out.write(piece)


def _asked(address: Address) -> tuple[Iterator[Any], int]:
    """The body of an object, piece by piece, and how many bytes are to come."""
    import obstore

    if is_odd(address.key) and can_be_used():
        return odd_read(address)
    found = obstore.get(store_of(address.bucket), address.key)
    return iter(found.stream(min_chunk_size=_PIECE)), found.meta["size"]


def _pieces(stream: Iterator[Any], size: int) -> Iterator[bytes]:
    """The body of an answer, all of it.

    Raises:
        Cut: it ends before its time.
    """
    came = 0
    while True:
        try:
            piece = bytes(next(stream))
        except StopIteration:
            break
        except Exception as error:  # clients tell of a body as of anything else
            raise TruncatedBody(f"its body breaks off after {came} of {size} bytes") from error
        progress()
        came += len(piece)
        yield piece
    if came != size:
        raise TruncatedBody(f"{came} of {size} bytes came")


def put(address: Address, content: bytes | Path) -> None:
    """Make an object of bytes, or of a file; a reader sees all of it or what was there before.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with told(address):
            tried(partial(_put, address, content))
    except TruncatedBody as error:
        raise StorageError(f"{address} cannot be written: {error}") from error
    progress()


def _put(address: Address, content: bytes | Path) -> None:
    import obstore

    try:
        obstore.put(store_of(address.bucket), address.key, content, max_concurrency=_PIECES_AT_ONCE)
    except Exception as error:
        # Of a large file's pieces, which were put together already, and half of the answer came.
        if error_kind(error) == "gone":
            raise TruncatedBody("what was sent of it is gone before its end") from error
        raise


def put_new(address: Address, content: bytes, kind: type[Mission9Error] = StorageError) -> bool:
    """Make an object where there is none; whether there was none.

    An answer that is lost is asked for again, and then it may be this very content that is there: its reader must know.

    Raises:
        Mission9Error: of that kind: it cannot be written.
    """
    import obstore

    try:
        with told(address, kind):
            tried(partial(obstore.put, store_of(address.bucket), address.key, content, mode="create"))
    except kind as error:
        if _trouble_behind(error) == "there":
            return False
        raise
    return True


def copy(source: Address, target: Address) -> None:
    """The same object under a second key; its bytes do not come here.

    Raises:
        StorageError: it cannot be copied.
    """
    import obstore

    with told(source):
        tried(partial(obstore.copy, store_of(source.bucket), source.key, target.key))


def delete(addresses: Iterable[Address]) -> None:
    """Delete objects; those that are gone already do not matter.

    Raises:
        StorageError: one cannot be deleted.
    """
    import obstore

    by_bucket: dict[str, list[str]] = {}
    for address in addresses:
        by_bucket.setdefault(address.bucket, []).append(address.key)
    for bucket, keys in by_bucket.items():
        with told(Address(bucket, keys[0])):
            tried(partial(obstore.delete, store_of(bucket), keys))


def head(address: Address, kind: type[Mission9Error] = StorageError) -> ObjectInfo | None:
    """Return what the server tells of one object; None where there is none.

    Raises:
        Mission9Error: of that kind: it does not tell.
    """
    try:
        return head_existing(address, kind)
    except kind as error:
        if is_gone(error):
            return None
        raise


def head_existing(address: Address, kind: type[Mission9Error] = StorageError) -> ObjectInfo:
    """Return what the server tells of one object, which must be there.

    Raises:
        Mission9Error: of that kind: it is not, or the server does not tell.
    """
    with told(address, kind):
        return ObjectInfo.of(tried(partial(_head, address)))


def _head(address: Address) -> Any:
    import obstore

    if is_odd(address.key) and can_be_used():
        return odd_head(address)
    return obstore.head(store_of(address.bucket), address.key)


def map_concurrent(work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """`map(work, items)`, many at a time; the first error ends it."""
    if not items:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
        futures = [pool.submit(partial(work, item)) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
