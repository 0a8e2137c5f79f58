"""Small files of the state of an output in a bucket; see `state_files`."""

from __future__ import annotations

from mission9.disk.untrusted import MIB
from mission9.s3.address import Address
from mission9.s3.listings import list_level
from mission9.s3.objects import get_if_there, put

_MOST_BYTES = 256 * MIB


class BucketState:
    """The state below the address given."""

    def __init__(self, state: Address) -> None:
        self._state = state

    def read(self, name: str) -> bytes | None:
        return get_if_there(self._state / name, _MOST_BYTES)

    def write(self, name: str, content: bytes) -> None:
        put(self._state / name, content)

    def names(self, folder: str) -> list[str]:
        objects, _ = list_level(self._state / folder)
        return sorted(found.key.rpartition("/")[2] for found in objects)
