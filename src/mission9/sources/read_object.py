"""An image in a bucket -> its bytes, or the reason why not."""

from __future__ import annotations

from mission9.errors import ImageError, Mission9Error, Reason, StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.errors import ErrorKind, describe_error, error_kind
from mission9.storage.s3.objects import TooLarge, TruncatedBody, read

# What becomes of one image; and what is the same for all that are left, as when credentials expire during a run.
_REASONS: dict[ErrorKind, Reason] = {"gone": "vanished", "forbidden": "permission_denied"}
_OF_ALL: set[ErrorKind] = {"no bucket", "elsewhere", "unknown key", "no credentials", "wrong clock"}


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
    except TruncatedBody as error:
        raise ImageError("unreadable", str(error)) from error
    except Mission9Error:  # of the client itself
        raise
    except Exception as error:
        trouble = error_kind(error)
        if trouble is None:
            raise
        if trouble in _OF_ALL:
            raise StorageError(describe_error(trouble, address, error)) from error
        words = "there is no such object (any more)" if trouble == "gone" else describe_error(trouble, address, error)
        raise ImageError(_REASONS.get(trouble, "unreadable"), words) from error
