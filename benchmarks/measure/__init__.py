"""Building blocks of the benchmarks: image trees, child processes and their memory, checks, and the ratios."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHARED = REPOSITORY.parent / "shared"
RESULTS = REPOSITORY / "benchmarks" / "results"
