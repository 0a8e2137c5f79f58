"""An image in a bucket -> its bytes, or the reason why not."""

from __future__ import annotations

from mission9.errors import ImageError, Mission9Error, Reason
from mission9.s3.address import Address
from mission9.s3.objects import Cut, TooLarge, read
from mission9.s3.told import Trouble, in_words, trouble_of

# What becomes of one image; everything else is the same for all, and found out before there is work.
_REASONS: dict[Trouble, Reason] = {"gone": "vanished", "forbidden": "permission_denied"}


def read_object(address: Address, *, max_bytes: int) -> bytes:
    """The whole content of an object.

    Raises:
        ImageError: with the reason.
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
        words = "there is no such object (any more)" if trouble == "gone" else in_words(trouble, address, error)
        raise ImageError(_REASONS.get(trouble, "unreadable"), words) from error
