"""Byte ranges of an object, and an object as a file that is read in ranges, one request each."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

from mission9.errors import StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.client import store_of
from mission9.storage.s3.errors import translate_errors
from mission9.storage.s3.objects import TruncatedBody, head_existing, tried

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def get_range(address: Address, start: int, length: int) -> bytes:
    """A byte range of an object, by one request.

    Raises:
        StorageError: it cannot be read, or the object is shorter.
    """
    try:
        with translate_errors(address):
            return tried(partial(_range, address, start, length))
    except TruncatedBody as error:
        raise StorageError(f"{address} cannot be read: {error}") from error


class RangeReader(io.RawIOBase):
    """An object as a seekable, read-only file.

    Raises:
        StorageError: it cannot be read.
    """

    def __init__(self, address: Address) -> None:
        self._address, self._size, self._at = address, head_existing(address).size, 0

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
        raise TruncatedBody(f"the body was truncated after {len(data)} of {length} bytes")
    return data
