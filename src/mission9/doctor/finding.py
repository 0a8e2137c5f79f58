"""A finding: the thing that was looked at, its state, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    status: Status
    found: str
    remedy: str = ""
