"""The module names of the original project; the code is in `mission9`, which a bare checkout finds here."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("mission9") is None:
    sys.path.insert(0, str(Path(__file__).parent))
