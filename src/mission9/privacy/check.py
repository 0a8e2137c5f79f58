"""One thing that a policy asks of a bucket, and what was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that was looked at of a bucket: what was found, and what to do where it is not as it should be.

    `bucket` is its name, or the URL of another store.
    """

    bucket: str
    what: str
    is_met: bool
    found: str
    remedy: str = ""

    @property
    def told(self) -> str:
        """Return what was found, in words."""
        place = self.bucket if "://" in self.bucket else f"s3://{self.bucket}"
        return f"{place}, {self.what}: {self.found}"
