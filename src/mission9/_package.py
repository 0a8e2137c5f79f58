"""The package itself: its version, where it lies, and how other interpreters find it."""

from __future__ import annotations

import os
from pathlib import Path

__version__ = "0.1.0"

FOLDER = Path(__file__).parent


def python_path() -> str:
    """Return the PYTHONPATH of a process that is to import this package, from a bare checkout or an archive too."""
    return os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
