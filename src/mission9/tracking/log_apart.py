"""Results go to MLflow from a process of its own: a server may be down, slow or wrong without harm to the run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mission9
from mission9.disk.scratch import scratch_folder
from mission9.errors import Mission9Error
from mission9.probes import unreachable
from mission9.runners.environment import SAFE_PATH
from mission9.tracking import HURRIED, prepared

logger = logging.getLogger(__name__)

# A run waits no longer for a server.
_PATIENCE, _PROBE = 10.0, 3.0
_READY = "ready"


def log_within_patience(root: str, uri: str) -> None:
    """Log results from a process of its own; where the server takes too long, or refuses, that is a warning.

    A server that does not answer costs no accuracies; one that does has ten seconds in all to take what is sent.
    """
    start = time.monotonic()
    if uri.startswith("http") and (failure := unreachable(uri.rstrip("/") + "/health", _PROBE)):
        _warn(f"MLflow does not answer ({failure})", root)
        return
    patience = _PATIENCE - (time.monotonic() - start)
    settings = os.environ | HURRIED | SAFE_PATH | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": _import_path()}
    command = [sys.executable, "-P", "-m", __name__, root]
    with tempfile.TemporaryFile("w+") as errors:
        # Without a buffer: what was read ahead of a line, `communicate` would not see.
        with subprocess.Popen(  # noqa: S603
            command, bufsize=0, stdout=subprocess.PIPE, stderr=errors, env=settings
        ) as process:
            try:
                told = _last_words(process, patience)
            except subprocess.TimeoutExpired:
                told = f"MLflow: no answer within {_PATIENCE:g} s"
            finally:
                process.kill()
        if process.returncode == 0:
            logger.info("MLflow: %s", told)
            return
        errors.seek(0)
        _warn(told or (errors.read().strip().splitlines() or ["MLflow ended without a word"])[-1], root)


def _last_words(process: subprocess.Popen[bytes], patience: float) -> str:
    """The last line of a process of ours, which has so many seconds for all after it said that it is ready.

    Others may speak before: whatever Python loads as it begins, and MLflow's client.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
    """
    assert process.stdout is not None  # noqa: S101 (for mypy)
    said: list[bytes] = []
    for line in process.stdout:
        if line.strip() == _READY.encode():
            said = []
            break
        said.append(line)
    said += process.communicate(timeout=patience)[0].splitlines()
    return next((line.decode(errors="replace").strip() for line in reversed(said) if line.strip()), "")


def _warn(words: str, root: str) -> None:
    logger.warning("%s. The results are whole; send them later: mission9 log %s", words, root)


def _import_path() -> str:
    """Where a process of ours finds this package, in a bare checkout too."""
    paths = [str(Path(mission9.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, paths))


def main() -> int:
    """Log the results in the folder given as the one argument; says `ready` before it asks the server anything."""
    try:
        with scratch_folder() as scratch:
            found = prepared(sys.argv[1], scratch)
            print(_READY, flush=True)
            print(found.log(os.environ["MLFLOW_TRACKING_URI"]))
    except Mission9Error as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
