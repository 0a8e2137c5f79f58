"""Make smaller datasets; the same as `mission9 subset`.

python scripts/subset_data.py --percentage 1
python scripts/subset_data.py --all
python scripts/subset_data.py --list
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from mission9.cli import main

if __name__ == "__main__":
    sys.exit(main(["subset", *sys.argv[1:]]))
