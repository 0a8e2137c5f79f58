"""Quick checks of the machine."""

from __future__ import annotations

import errno
import importlib.metadata
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 5.0  # seconds to wait for a server
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (Linux has it there)
SHARED_REMEDY = f"mount a tmpfs there, for a container with --tmpfs {SHARED_MEMORY}"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def why_no_shared_memory() -> str:
    """The reason why processes cannot share memory here, and the remedy; empty if they can, or if it is only full."""
    try:
        with tempfile.TemporaryFile(dir=SHARED_MEMORY):
            return ""
    except OSError as error:
        if error.errno in _FULL:
            return ""
        return f"it cannot be written ({error.strerror}): {SHARED_REMEDY}"


_ANSWERS = (401, 403, 404, 405, 501)  # of a server that responds to an anonymous HEAD request


def installed(package: str) -> str | None:
    """A package's version; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def nvidia_gpus() -> str:
    """The GPUs that the driver lists, with its version; empty if there are none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(done.stdout.strip().splitlines())


def unreachable(url: str, patience: float = PATIENCE) -> str:
    """The reason why a server cannot be reached; empty if it can. The request omits the user in the URL."""
    parts = urlsplit(url)
    anonymous = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        with urllib.request.urlopen(urllib.request.Request(anonymous, method="HEAD"), timeout=patience):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in _ANSWERS else f"it answers {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def is_free(port: int) -> bool:
    """True if no process listens on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def memory_bytes(memory: str) -> int:
    """The number of bytes in a size such as 8g, in Java's notation."""
    return int(memory[:-1]) << 10 * ("kmgt".index(memory[-1].lower()) + 1)


def size_text(count: int) -> str:
    """A number of bytes as readable text, in units of 2**30 bytes."""
    return f"{count / 2**30:,.1f} GB"
