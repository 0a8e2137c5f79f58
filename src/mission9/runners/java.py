"""The Java that Spark needs, the user entry that Java needs, and the archive with which Java starts faster."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mission9.errors import SetupError

OLDEST_JAVA = 17  # required by Spark 4, and supported by Spark 3.5


def find_java() -> str:
    """The home of a Java that supports Spark: JAVA_HOME, then the one on PATH.

    Raises:
        SetupError: Java is missing or too old.
    """
    found = []
    for java in (_java_in(os.environ.get("JAVA_HOME")), shutil.which("java")):
        if java is None:
            continue
        version = _java_version(java)
        if version >= OLDEST_JAVA:
            return str(Path(os.path.realpath(java)).parent.parent)
        found.append(f"{java} is Java {version}" if version else f"{java} does not run")
    raise SetupError(
        f"Spark needs Java {OLDEST_JAVA} or newer ({'; '.join(found) or 'no java in JAVA_HOME or on PATH'}): install "
        f"it, on Debian and Ubuntu with: sudo apt-get install openjdk-{OLDEST_JAVA}-jre-headless"
    )


def check_user() -> None:
    """Check that the system has an entry for the user, without which Spark's Java does not start.

    Raises:
        SetupError: the user has no entry in /etc/passwd.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        pwd.getpwuid(uid)
    except KeyError as error:
        entry = f"mission9:x:{uid}:{gid}::/tmp:/bin/sh"
        raise SetupError(
            f"user {uid} has no entry in /etc/passwd, so Spark's Java does not start: add one (echo "
            f"{entry} >> /etc/passwd, as root), or pass --runner local"
        ) from error


def class_archive() -> Path | None:
    """The archive of this environment, unless it is missing or cut short, with which Java would not start."""
    return next((file for file in archive_folder().glob("*.jsa") if file.name == archive_name(file)), None)


def java_options() -> tuple[str, ...]:
    """The options with which Java uses the archive, if there is one, and is silent if it cannot."""
    file = class_archive()
    # Java and Spark split these at spaces.
    is_usable = file is not None and not any(map(str.isspace, str(file)))
    return (f"-XX:SharedArchiveFile={file}", "-Xlog:disable") if is_usable else ()


def archive_folder() -> Path:
    """The folder of this environment's archive."""
    return Path(sys.prefix) / "share" / "mission9"


def archive_name(file: Path) -> str:
    """The name of an archive, which has its size in bytes."""
    return f"spark-{file.stat().st_size}.jsa"


def _java_in(home: str | None) -> str | None:
    return str(Path(home) / "bin" / "java") if home else None


def _java_version(java: str) -> int:
    """The major version, 0 if the program does not run."""
    try:
        command = [java, "-version"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stderr  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(match[1]) if match else 0
