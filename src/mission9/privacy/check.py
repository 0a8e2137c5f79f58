"""One requirement of a policy on a bucket, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check of a bucket: the value found, and the remedy if it fails.

    `bucket` is its name, or the URL of another store.
    """

    bucket: str
    what: str
    is_met: bool
    found: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """The outcome as text."""
        place = self.bucket if "://" in self.bucket else f"s3://{self.bucket}"
        return f"{place}, {self.what}: {self.found}"
