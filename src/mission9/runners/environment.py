"""Environment variables that affect worker processes, and those that describe this process's environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

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


def is_submitted() -> bool:
    """Return True if spark-submit or Databricks started this program, which then sets Spark's master and workers."""
    return "PYSPARK_GATEWAY_PORT" in os.environ or is_databricks()


def is_databricks() -> bool:
    """Return True on a cluster of Databricks, whose session mission9 must not stop."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ
