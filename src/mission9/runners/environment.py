"""The environment that worker processes find, and the one that this process finds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# No process of Python that is started here takes a file of the current folder for a module: a dataset that somebody
# else made may hold a random.py.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}

# One thread in each worker process: there is a worker for each core.
WORKERS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | SAFE_PATH


@contextmanager
def safe_path() -> Iterator[None]:
    """Have the processes that are started meanwhile find no module in the current folder, whoever starts them."""
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
    """Tell whether spark-submit or Databricks started this program: it has settled Spark's master and workers then."""
    return "PYSPARK_GATEWAY_PORT" in os.environ or is_databricks()


def is_databricks() -> bool:
    """Tell whether this is a cluster of Databricks, whose session is not ours to stop."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ
