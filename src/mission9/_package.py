"""The package itself: its version, its folder, and the path on which other interpreters find it."""

from __future__ import annotations

import os
from pathlib import Path

__version__ = "0.1.0"

FOLDER = Path(__file__).parent


def python_path() -> str:
    """The PYTHONPATH for a process that imports this package, also from a bare checkout or an archive."""
    return os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
