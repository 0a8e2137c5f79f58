"""Small questions to the machine, each answered in a moment."""

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

PATIENCE = 5.0  # seconds for a server
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (where Linux has it)
SHARED_REMEDY = f"mount a tmpfs there, for a container with --tmpfs {SHARED_MEMORY}"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def why_no_shared_memory() -> str:
    """Why processes cannot share memory here, and what to do; empty if they can, or if it is only full."""
    try:
        with tempfile.TemporaryFile(dir=SHARED_MEMORY):
            return ""
    except OSError as error:
        if error.errno in _FULL:
            return ""
        return f"it cannot be written ({error.strerror}): {SHARED_REMEDY}"


_ANSWERS = (401, 403, 404, 405, 501)  # of a server that is there: who asks says nothing of himself, and asks by HEAD


def installed(package: str) -> str | None:
    """A package's version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def told_by_nvidia_smi() -> str:
    """The GPUs that the driver lists, with its version; empty where there is none."""
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
    """Why a server cannot be reached, in words; empty if it can. Who asks is not told: a user in the URL stays here."""
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
    """The folder, or the nearest above it that there is."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def memory_bytes(memory: str) -> int:
    """Return what Java understands by 8g."""
    return int(memory[:-1]) << 10 * ("kmgt".index(memory[-1].lower()) + 1)


def size_text(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 2**30:,.1f} GB"
