"""Images without a daemon: what of buildah is needed to build one, look at it, and run what it says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Without a runtime of containers, of which buildah needs none: a root of its own, no capabilities, and seccomp.
ISOLATION = ("--isolation", "chroot")


@dataclass(frozen=True)
class Buildah:
    """Images and containers in a folder of their own."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        places = ["--root", str(self.folder / "images"), "--runroot", str(self.folder / "run")]
        return ["nice", "buildah", "--storage-driver", "overlay", *places, *arguments]

    def __call__(self, *arguments: str) -> str:
        """Return what it says, which is a name where it makes something.

        Raises:
            subprocess.CalledProcessError: it fails.
        """
        command = self.command(*arguments)
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603

    def import_root(self, root: Path, name: str) -> None:
        """Make an image of a root file system, given as a folder or a tar."""
        container = self("from", "scratch")
        self("add", container, str(root), "/")
        self("commit", "--format", "docker", "--rm", container, name)

    def container(self, image: str) -> Container:
        """A container made from an image, which is there until all are deleted."""
        config: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["Docker"]["config"]
        return Container(self, self("from", "--pull-never", image), config)


@dataclass(frozen=True)
class Container:
    """A container made from an image; `config` is what the image says of users, commands and environment."""

    buildah: Buildah
    name: str
    config: Mapping[str, Any]

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Return what a command says, and its exit code."""
        inside = self._run(command, environment or {})
        return subprocess.run(inside, capture_output=True, text=True, check=False)  # noqa: S603

    @contextmanager
    def serving(self, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
        """The image's own command runs, and says into `log`; what it starts ends with the PID namespace it is in."""
        command = [*self.config["Entrypoint"], *self.config["Cmd"]]
        with (
            log.open("w") as told,
            subprocess.Popen(self._run(command, environment), stdout=told, stderr=told) as process,  # noqa: S603
        ):
            try:
                yield
            finally:
                process.kill()

    def health(self) -> int:
        """The exit code of the image's own check."""
        return self.run(*self.config["Healthcheck"]["Test"][1:]).returncode

    def _run(self, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        # Where MLflow is known by its service's name.
        hosts = self.buildah.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost mlflow\n")
        given = [f"--env={name}={value}" for name, value in environment.items()]
        options = [*ISOLATION, "--volume", f"{hosts}:/etc/hosts:ro", *given]
        return self.buildah.command("run", *options, self.name, "--", *command)
