"""Log results to MLflow in a separate process: a server may be down, slow or wrong without harm to the run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from mission9._package import python_path
from mission9.errors import Mission9Error
from mission9.runners.environment import SAFE_PATH
from mission9.tracking import log_output

logger = logging.getLogger(__name__)


def log_apart(root: str, uri: str, place: str) -> None:
    """Log results in the folder `root`, of the output `place`, in a separate process, and wait for it.

    A failure is a warning.
    """
    settings = os.environ | SAFE_PATH | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": python_path()}
    command = [sys.executable, "-P", "-m", __name__, root]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=settings, check=False)  # noqa: S603
    told = _last_line(done.stdout)
    if done.returncode == 0:
        logger.info("MLflow: %s", told)
        return
    logger.warning("%s", with_remedy(told or _last_line(done.stderr) or "MLflow ended without a message", place))


def with_remedy(words: str, place: str) -> str:
    """Add to a failure that nothing is lost, and how to retry."""
    return f"{words}. The results are complete; send them later: mission9 log {place}"


def _last_line(text: str) -> str:
    """The last non-empty line: others may come before it, from anything that Python loads."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def main() -> int:
    """Log the results in the folder given as the one argument."""
    try:
        print(log_output(sys.argv[1], os.environ["MLFLOW_TRACKING_URI"]))
    except Mission9Error as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
