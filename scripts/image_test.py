"""Build the images of the Dockerfile without a daemon, and see that everything in them answers. As root.

    PYTHONPATH=. python scripts/image_test.py [--target cpu] [--debootstrap '[OPTIONS] SUITE [MIRROR]' | --root FILE]

The base is the Dockerfile's, or, where no registry is reached, one made by debootstrap ('--components=main,universe
noble'), or of a tar of a root file system. pip's index, folders of wheels and certificate are those of this machine.
`--target notebook` is all of `cpu` but torch.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from scripts.buildah import ISOLATION, Buildah

REPOSITORY = Path(__file__).resolve().parent.parent
CERTIFICATE = "/run/secrets/ca"  # where the Dockerfile has it

# A network and processes of their own: the ports are free, nobody else reaches them, and no server outlives the check.
APART = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
LOOPBACK = 'ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec "$@"'


def main() -> int:
    arguments = _arguments()
    needed = ["buildah", "unshare", "ip", *(["debootstrap"] if arguments.debootstrap else [])]
    if missing := [name for name in needed if shutil.which(name) is None]:
        print(f"mission9: {' and '.join(missing)} must be there: apt-get install buildah debootstrap iproute2")
        return 2
    if os.geteuid() != 0:
        print("mission9: images are built and run as root here: sudo make image-test")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="mission9-images-", dir=arguments.folder))
    os.environ["TMPDIR"] = str(folder)  # buildah's too
    buildah = Buildah(folder)
    try:
        base = _base(buildah, arguments)
        images = [_build(buildah, target, base) for target in ("mlflow", arguments.target)]
        return _check(folder, images)
    except subprocess.CalledProcessError:
        print("mission9: the build failed, see above; --debootstrap or --root do without a registry")
        return 1
    finally:
        for command in (["rm", "--all"], ["umount", "--all"]):
            subprocess.run(buildah.command(*command), check=False, stdout=subprocess.DEVNULL)  # noqa: S603
        shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cpu", choices=["cpu", "gpu", "notebook"], help="(default: cpu)")
    parser.add_argument("--folder", type=Path, help="where 10 GB are free, 40 for gpu (default: TMPDIR)")
    base = parser.add_mutually_exclusive_group()
    base.add_argument("--debootstrap", metavar="'[OPTIONS] SUITE [MIRROR]'", help="make the base")
    base.add_argument("--root", type=Path, metavar="FILE.tar", help="take this root file system as the base")
    return parser.parse_args()


def _base(buildah: Buildah, arguments: argparse.Namespace) -> str | None:
    """The image to build on; None for the Dockerfile's own."""
    root: Path | None = arguments.root
    if arguments.debootstrap:
        root = buildah.folder / "root"
        words = shlex.split(arguments.debootstrap)
        options = [word for word in words if word.startswith("-")]
        suite, *mirror = [word for word in words if word not in options]
        command = ["debootstrap", "--variant=minbase", *options, suite, str(root), *mirror]
        subprocess.run(command, check=True)  # noqa: S603
    if root is None:
        return None
    buildah.import_root(root, "localhost/base")
    return "localhost/base"


def _build(buildah: Buildah, target: str, base: str | None) -> str:
    """Build a target, and say how long it took and how large it is."""
    start, image = time.monotonic(), f"localhost/mission9:{target}"
    options = ["--format", "docker", "--layers", "--target", target, "--tag", image]
    if base is not None:
        options.append(f"--build-arg=BASE_IMAGE={base}")
    command = buildah.command("bud", *ISOLATION, *options, *_pip(buildah.folder), str(REPOSITORY))
    subprocess.run(command, check=True)  # noqa: S603
    size = buildah("images", "--format", "{{.Size}}", image)
    print(f"{image}: {size}, built in {time.monotonic() - start:.0f} s", flush=True)
    return image


def _pip(folder: Path) -> list[str]:
    """Return what hands this machine's pip to the build, of which nothing stays in the image."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    given = dict(line.split("=", 1) for line in told.splitlines())
    settings = {name.rpartition(".")[2]: value.strip("'\"") for name, value in given.items()}
    lines = ["[global]", *(f"{name} = {settings[name]}" for name in ("index-url", "find-links") if name in settings)]
    folders = [place for place in settings.get("find-links", "").split() if not urlsplit(place).scheme]
    options = [f"--volume={place}:{place}:ro" for place in folders]
    if certificate := settings.get("cert"):
        lines.append(f"cert = {CERTIFICATE}")
        options.append(f"--secret=id=ca,src={certificate}")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return [*options, f"--secret=id=pip_conf,src={folder / 'pip.conf'}"]


def _check(folder: Path, images: list[str]) -> int:
    program = [sys.executable, str(REPOSITORY / "scripts" / "image_checks.py"), str(folder), *images]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [*APART, "sh", "-c", LOOPBACK, "sh", *program]
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
