"""An image in a bucket -> its bytes, or the reason why not."""

from __future__ import annotations

from mission9.errors import ImageError, Mission9Error, Reason, StorageError
from mission9.s3.address import Address
from mission9.s3.objects import Cut, TooLarge, read
from mission9.s3.told import Trouble, in_words, trouble_of

# What becomes of one image; and what is the same for all that are left, as when credentials expire during a run.
_REASONS: dict[Trouble, Reason] = {"gone": "vanished", "forbidden": "permission_denied"}
_OF_ALL: set[Trouble] = {"no bucket", "elsewhere", "unknown key", "no credentials", "wrong clock"}


def read_object(address: Address, *, max_bytes: int) -> bytes:
    """The whole content of an object.

    Raises:
        ImageError: with the reason.
        StorageError: no image can be read any more.
    """
    try:
        return read(address, max_bytes)
    except TooLarge as error:
        raise ImageError("too_many_bytes", str(error)) from error
    except Cut as error:
        raise ImageError("unreadable", str(error)) from error
    except Mission9Error:  # of the client itself
        raise
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None:
            raise
        if trouble in _OF_ALL:
            raise StorageError(in_words(trouble, address, error)) from error
        words = "there is no such object (any more)" if trouble == "gone" else in_words(trouble, address, error)
        raise ImageError(_REASONS.get(trouble, "unreadable"), words) from error
