"""An image in a bucket -> its bytes, or the reason for a reject."""

from __future__ import annotations

from mission9.errors import ImageError, Mission9Error, Reason, StorageError
from mission9.storage.s3.address import Address
from mission9.storage.s3.errors import ErrorKind, describe_error, error_kind
from mission9.storage.s3.objects import TooLarge, TruncatedBody, read

# Errors of one image; and those that affect all remaining images, such as credentials that expire during a run.
_REASONS: dict[ErrorKind, Reason] = {"gone": "vanished", "forbidden": "permission_denied"}
_OF_ALL: set[ErrorKind] = {"no bucket", "elsewhere", "unknown key", "no credentials", "wrong clock"}


def read_object(address: Address, *, max_bytes: int) -> bytes:
    """Read a whole object.

    Raises:
        ImageError: it cannot be read.
        StorageError: no other image could be read either.
    """
    try:
        return read(address, max_bytes)
    except TooLarge as error:
        raise ImageError("too_many_bytes", str(error)) from error
    except TruncatedBody as error:
        raise ImageError("unreadable", str(error)) from error
    except Mission9Error:  # raised by the client itself
        raise
    except Exception as error:
        trouble = error_kind(error)
        if trouble is None:
            raise
        if trouble in _OF_ALL:
            raise StorageError(describe_error(trouble, address, error)) from error
        words = "the object does not exist (any more)" if trouble == "gone" else describe_error(trouble, address, error)
        raise ImageError(_REASONS.get(trouble, "unreadable"), words) from error
