"""Environment variables that affect worker processes, and those that describe this process's environment."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder

# No Python process started here may import a file of the current folder as a module: an untrusted dataset may contain a
# random.py.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}

# One thread in each worker process, since there is a worker for each core.
WORKERS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | SAFE_PATH


@contextmanager
def safe_path() -> Iterator[None]:
    """Keep the processes started within the context, by any library, from importing modules of the current folder."""
    before = {name: os.environ.get(name) for name in SAFE_PATH}
    os.environ.update(SAFE_PATH)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:  # noqa: ARG002 - as imports call
        if name == "pandas":
            raise ModuleNotFoundError(f"no module named {name} yet", name=name)


def defer_pandas() -> None:
    """Have Arrow import pandas only for a conversion to pandas, not for its first array of Python's values.

    The import takes half as long as the rest of a command. This is for processes of mission9 alone: unless it has
    imported pandas, Arrow converts a Series like any sequence.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([])  # at which Arrow looks for pandas, and does not look again
    finally:
        sys.meta_path.remove(finder)


def is_submitted() -> bool:
    """Return True if spark-submit or Databricks started this program, which then sets Spark's master and workers."""
    return "PYSPARK_GATEWAY_PORT" in os.environ or is_databricks()


def is_databricks() -> bool:
    """Return True on a cluster of Databricks, whose session mission9 must not stop."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ
