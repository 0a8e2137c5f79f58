"""Start Spark's Python workers as PySpark does, without a traceback when a run has ended.

Ctrl-C closes the pipe of a worker that is about to answer, which needs no report.
"""

from __future__ import annotations

import socket

from pyspark import daemon

_worker = daemon.worker


def worker(sock: socket.socket, authenticated: bool) -> int:
    """Run PySpark's worker; return 1, which ends it, if Spark has gone away."""
    try:
        return int(_worker(sock, authenticated))
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    daemon.worker = worker
    daemon.manager()
