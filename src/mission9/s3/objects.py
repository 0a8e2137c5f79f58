"""Read, write, list, copy and delete objects; what fails is told in a line."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mission9.errors import Mission9Error, StorageError
from mission9.files import appearing, open_to_write
from mission9.s3.address import Address
from mission9.s3.client import PATIENCE, store_of
from mission9.s3.told import Trouble, told, trouble_of
from mission9.watch import progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Item = TypeVar("Item")
Found = TypeVar("Found")

PAGE_KEYS = 1000  # what a server lists at a time
AT_ONCE = 32  # requests at a time, which wait for the network, not for a core

_PIECE = 16 * 1024 * 1024

# A body that ends before its time is asked for again, so often, after so many seconds.
_TRIES, _PAUSE = 6, 0.2


@dataclass(frozen=True)
class Listed:
    """An object, as a listing tells of it."""

    key: str
    size: int
    modified: datetime
    etag: str


class TooLarge(Exception):
    """An object is larger than it may be."""


class Cut(Exception):
    """A body ended before its time."""


def read(address: Address, most: int) -> bytes:
    """An object's content, of at most `most` bytes, by one request; never half of it.

    Raises:
        TooLarge: it is larger.
        Cut: it ended before its time again and again.
        Exception: as obstore raises them.
    """
    return _tried(partial(_read, address, most))


def get(address: Address, most: int, kind: type[Mission9Error] = StorageError) -> bytes:
    """An object's content.

    Raises:
        Mission9Error: of that kind: it cannot be read, or is larger.
    """
    try:
        with told(address, kind):
            return read(address, most)
    except (TooLarge, Cut) as error:
        raise kind(f"{address} cannot be used: {error}") from error


def get_if_there(address: Address, most: int) -> bytes | None:
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
            _tried(partial(_fetch, address, file))
    except Cut as error:
        raise StorageError(f"{address} cannot be read: {error}") from error


def get_range(address: Address, start: int, length: int) -> bytes:
    """A piece of an object, by one request.

    Raises:
        StorageError: it cannot be read, or ends before that.
    """
    try:
        with told(address):
            return _tried(partial(_range, address, start, length))
    except Cut as error:
        raise StorageError(f"{address} cannot be read: {error}") from error


class RangeReader(io.RawIOBase):
    """An object as a file that is read in ranges, each by one request.

    Raises:
        StorageError: it cannot be read.
    """

    def __init__(self, address: Address) -> None:
        found = head(address)
        if found is None:
            raise StorageError(f"{address} is not there: give the same command again")
        self._address, self._size, self._at = address, found.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        place = memoryview(buffer)
        count = max(0, min(len(place), self._size - self._at))
        if count:
            place[:count] = get_range(self._address, self._at, count)
        self._at += count
        return count


def _range(address: Address, start: int, length: int) -> bytes:
    import obstore

    data = bytes(obstore.get_range(store_of(address.bucket), address.key, start=start, length=length))
    if len(data) != length:
        raise Cut(f"{len(data)} of {length} bytes came")
    return data


def is_gone(error: Mission9Error) -> bool:
    """Whether what an error tells of is that there is no such object."""
    return _trouble_behind(error) == "gone"


def _trouble_behind(error: Mission9Error) -> Trouble | None:
    return trouble_of(error.__cause__) if isinstance(error.__cause__, Exception) else None


def _tried(once: Callable[[], Found]) -> Found:
    """What `once` gives; tried again where a body is cut, or the client does not try again itself.

    It does so with requests that do no harm when they are made twice, and a minute later there is no point in it.
    """
    end = time.monotonic() + PATIENCE.total_seconds()
    for attempt in range(_TRIES - 1):
        try:
            return once()
        except Exception as failure:  # obstore's have no base of their own
            is_passing = isinstance(failure, Cut) or trouble_of(failure) == "unavailable"
            if not is_passing or time.monotonic() > end:
                raise
        time.sleep(_PAUSE * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 (no secret)
    return once()


def _read(address: Address, most: int) -> bytes:
    found, size = _asked(address)
    if size > most:
        raise TooLarge(f"{size} bytes are more than {most}")
    return b"".join(_pieces(found, size))


def _fetch(address: Address, file: Path) -> None:
    found, size = _asked(address)
    with appearing(file) as whole, open_to_write(whole) as out:
        for piece in _pieces(found, size):
            out.write(piece)


def _asked(address: Address) -> tuple[Any, int]:
    """The answer to a request for an object, and how many bytes are to come."""
    import obstore

    found = obstore.get(store_of(address.bucket), address.key)
    return found, found.meta["size"]


def _pieces(found: Any, size: int) -> Iterator[bytes]:
    """The body of an answer, all of it.

    Raises:
        Cut: it ends before its time.
    """
    came = 0
    stream = iter(found.stream(min_chunk_size=_PIECE))
    while True:
        try:
            piece = bytes(next(stream))
        except StopIteration:
            break
        except Exception as error:  # obstore tells of a body as of anything else
            raise Cut(f"its body breaks off after {came} of {size} bytes") from error
        progress()
        came += len(piece)
        yield piece
    if came != size:
        raise Cut(f"{came} of {size} bytes came")


def put(address: Address, content: bytes | Path) -> None:
    """Make an object of bytes, or of a file; a reader sees all of it or what was there before.

    Raises:
        StorageError: it cannot be written.
    """
    import obstore

    with told(address):
        _tried(partial(obstore.put, store_of(address.bucket), address.key, content))
    progress()


def put_new(address: Address, content: bytes, kind: type[Mission9Error] = StorageError) -> bool:
    """Make an object where there is none; whether there was none.

    An answer that is lost is asked for again, and then it may be this very content that is there: its reader must know.

    Raises:
        Mission9Error: of that kind: it cannot be written.
    """
    import obstore

    try:
        with told(address, kind):
            _tried(partial(obstore.put, store_of(address.bucket), address.key, content, mode="create"))
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
        _tried(partial(obstore.copy, store_of(source.bucket), source.key, target.key))


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
            _tried(partial(obstore.delete, store_of(bucket), keys))


def head(address: Address, kind: type[Mission9Error] = StorageError) -> Listed | None:
    """What the server tells of one object; None where there is none.

    Raises:
        Mission9Error: of that kind: it does not tell.
    """
    import obstore

    try:
        with told(address, kind):
            return _listed(_tried(partial(obstore.head, store_of(address.bucket), address.key)))
    except kind as error:
        if is_gone(error):
            return None
        raise


def list_below(address: Address, kind: type[Mission9Error] = StorageError) -> Iterator[list[Listed]]:
    """The objects below a prefix in order of their keys' bytes, a page at a time.

    Raises:
        Mission9Error: of that kind: they cannot be listed.
    """
    last: str | None = None
    pages = _pages_after(address, last)

    def next_page() -> Any:
        nonlocal pages
        try:
            return next(pages, None)
        except Exception:
            pages = _pages_after(address, last)  # a list that was cut goes on behind what came of it
            raise

    with told(address, kind):
        while page := _tried(next_page):
            last = page[-1]["path"]
            yield [_listed(facts) for facts in page]


def _pages_after(address: Address, key: str | None) -> Iterator[Any]:
    import obstore

    return iter(obstore.list(store_of(address.bucket), address.key or None, offset=key, chunk_size=PAGE_KEYS))


def list_level(address: Address, kind: type[Mission9Error] = StorageError) -> tuple[list[Listed], list[Address]]:
    """The objects directly below a prefix, and the prefixes there, by one listing.

    Raises:
        Mission9Error: of that kind: they cannot be listed.
    """
    import obstore

    with told(address, kind):
        found = _tried(partial(obstore.list_with_delimiter, store_of(address.bucket), address.key or None))
    prefixes = [Address(address.bucket, prefix.strip("/")) for prefix in found["common_prefixes"]]
    return [_listed(facts) for facts in found["objects"]], prefixes


def at_once(work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
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


def _listed(facts: Any) -> Listed:
    return Listed(facts["path"], facts["size"], facts["last_modified"], facts["e_tag"] or "")
