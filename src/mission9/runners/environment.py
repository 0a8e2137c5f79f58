"""What worker processes find in their environment, and what this process finds in its own."""

import os

# One thread in each worker process: there is a worker for each core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def is_submitted() -> bool:
    """Whether spark-submit, or Databricks, started this program: then it has settled Spark's master and workers."""
    return "PYSPARK_GATEWAY_PORT" in os.environ or is_databricks()


def is_databricks() -> bool:
    """Whether this is a cluster of Databricks, whose session is not ours to stop."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ
