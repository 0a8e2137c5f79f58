"""What worker processes find in their environment."""

# One thread in each worker process: there is a worker for each core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
