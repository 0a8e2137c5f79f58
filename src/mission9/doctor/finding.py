"""A finding: the thing checked, its status, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    what: str
    status: Status
    found: str
    remedy: str = ""
