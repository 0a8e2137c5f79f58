"""Start Spark's Python workers as PySpark does, without a stack where a run is over and nobody listens.

Ctrl-C closes the pipe of a worker that is about to answer, which is no news to anybody.
"""

from __future__ import annotations

import socket

from pyspark import daemon

_worker = daemon.worker


def worker(sock: socket.socket, authenticated: bool) -> int:
    """Do as PySpark's; 1, for a worker to end, where Spark has gone away."""
    try:
        return int(_worker(sock, authenticated))
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    daemon.worker = worker
    daemon.manager()
