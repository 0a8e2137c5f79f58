"""Limit how long MLflow's client waits for a server, and tell what its failures mean.

The limit is on a server's silence: until it is connected, and until each answer. Nothing limits work that goes on.
"""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import urlsplit

from mission9.redact import redact
from mission9.system import unreachable

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"

# Of MLflow's client, whose own patience is 120 s, seven times over, with longer and longer breaks.
_PATIENCE = {TIMEOUT: "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}

_FIRST_ANSWER = 6.0  # seconds for a sign of life, before anything is sent

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def be_patient() -> None:
    """Set how long MLflow's client waits for each answer, unless the environment says it."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


def no_answer(uri: str) -> str:
    """Why a server or database does not answer, in words; empty if it does, or the store is of files."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    patience = _number(os.environ.get(TIMEOUT, ""))
    if scheme in ("http", "https"):
        return unreachable(uri.rstrip("/") + "/health", patience)
    if scheme not in _PORTS or not parts.hostname:
        return ""
    try:
        socket.create_connection((parts.hostname, parts.port or _PORTS[scheme]), patience).close()
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def _number(text: str) -> float:
    return float(text) if text.isdigit() and int(text) else _FIRST_ANSWER


def describe_error(error: Exception) -> str:
    """Say in a line what an error of MLflow's client, or of a library below it, tells."""
    text = str(error) or type(error).__name__
    if found := re.search(r"too many (\d{3}) error responses", text):
        return f"the server answers {found[1]} again and again"
    if "ConnectionPool" in text or "timeout exception" in text:
        if "timed out" in text or "timeout" in text:
            return f"the server was silent for {os.environ.get(TIMEOUT)} s"
        reason = re.search(r"\[Errno -?\d+\] ([\w ]+)", text) or re.search(
            r"(Connection aborted|Remote end[\w ]+)", text
        )
        return f"the connection to the server fails ({reason[1] if reason else 'it breaks off'})"
    return redact(text.partition("\n")[0])[:300]
