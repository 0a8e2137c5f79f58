from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import add_odd_files


@pytest.fixture
def odd_tree(tree: Path, pictures: list[bytes]) -> Path:
    """The tree with names that need care, damaged and empty images, and files that are no images."""
    names = ("Training/Pomme d'été 1/a=b%20 #1.jpg", "Training/日本/🍑.jpg", "Training/_x/.y.jpg", "Training/a.b/1.jpg")
    add_odd_files(tree, names, pictures[9])
    for name in (".git/HEAD", "Training/b/.ipynb_checkpoints/1.jpg", "old/_state/lock", "old/page.png"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(pictures[8])
    (tree / "Training/b/notes.txt").write_text("none")
    for file in tree.rglob("*"):
        os.utime(file, (1_700_000_000, 1_700_000_000))  # FTP tells seconds
    return tree


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError("the server does not begin")
