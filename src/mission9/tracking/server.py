"""Limit how long MLflow's client waits for a server, and translate its errors.

The limit is on a server's silence: until it is connected, and until each answer. Work in progress has no limit.
"""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import urlsplit

from mission9.redact import redact
from mission9.system import unreachable

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"

# MLflow's client waits 120 s by default, and retries seven times, with longer and longer pauses.
_PATIENCE = {TIMEOUT: "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}

_FIRST_ANSWER = 6.0  # seconds for a first answer, before anything is sent

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def be_patient() -> None:
    """Set how long MLflow's client waits for each answer, unless the environment sets it."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


def no_answer(uri: str) -> str:
    """The reason why a server or database does not answer; empty if it does, or if the store is of files."""
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
    """Describe an error of MLflow's client, or of a library below it, in a line."""
    text = str(error) or type(error).__name__
    if found := re.search(r"too many (\d{3}) error responses", text):
        return f"the server repeatedly answers {found[1]}"
    if "ConnectionPool" in text or "timeout exception" in text:
        if "timed out" in text or "timeout" in text:
            return f"the server was silent for {os.environ.get(TIMEOUT)} s"
        reason = re.search(r"\[Errno -?\d+\] ([\w ]+)", text) or re.search(
            r"(Connection aborted|Remote end[\w ]+)", text
        )
        return f"the connection to the server fails ({reason[1] if reason else 'it is closed'})"
    return redact(text.partition("\n")[0])[:300]
