"""Images at `gs://`: the store's own package, gcsfs, on an emulator of Google's storage."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mission9.results.verify import verify_output
from mission9.sources import open_source, resolve_root
from tests.pack.test_pack import features_run, rows_of
from tests.sources.conftest import free_port, wait_for
from tests.support.hostile import tables
from tests.support.optional import skip_without

skip_without("gcsfs", "requirements-dev.txt")


class Store(NamedTuple):
    address: str
    log: Path

    def requests(self) -> list[str]:
        """The requests so far, a line each."""
        return re.findall(r'"(?:GET|POST|HEAD) \S+', self.log.read_text())


@pytest.fixture
def store(odd_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The odd tree in a bucket."""
    import gcsfs

    port, log = free_port(), tmp_path / "requests.log"
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}"]
    with log.open("w") as file:
        server = subprocess.Popen([*command, "--in-memory", "--default-bucket=fruits"], stdout=file, stderr=file)
    try:
        wait_for(port)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_GCE_CHECK", "true")  # no machine of Google's is asked for credentials
        # By gRPC and TLS it asks what kind of bucket that is, which emulators do not know.
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        fs = gcsfs.GCSFileSystem(skip_instance_cache=True)
        for image in (found for found in odd_tree.rglob("*") if found.is_file()):
            fs.pipe_file(f"fruits/tree/{image.relative_to(odd_tree)}", image.read_bytes())
        open_source.cache_clear()
        yield Store("gs://fruits/tree", log)
    finally:
        open_source.cache_clear()
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", pytest.param("spark", marks=pytest.mark.spark)])
def test_images_in_a_bucket_of_google_give_the_same_as_those_of_the_folder(
    runner: str, store: Store, odd_tree: Path, tmp_path: Path
) -> None:
    there, here = rows_of(store.address), rows_of(odd_tree)
    assert [{**row, "modified": 0} for row in there[0]] == [{**row, "modified": 0} for row in here[0]]
    assert (there[1].listed, there[1].skipped) == (here[1].listed, here[1].skipped)
    features_run(odd_tree, tmp_path / "wanted")
    command = ["run", "--input", store.address, "--output", str(tmp_path / "found"), "--weights", "demo"]
    command += ["--components", "3", "--max-reject-rate", "0.5", "--no-report"]
    # In a process of its own: workers of a Spark session that runs already would not know where the emulator is.
    subprocess.run([sys.executable, "-m", "mission9", *command, "--runner", runner], check=True)
    assert tables(tmp_path / "found") == tables(tmp_path / "wanted")
    assert not list(verify_output(str(tmp_path / "found")))


def test_an_image_is_one_request(store: Store, odd_tree: Path) -> None:
    source = open_source(resolve_root(store.address))
    paths = [f"Training/{label}/{number}.jpg" for label in "ab" for number in range(6)]
    before = len(store.requests())
    for path in paths:
        assert source.read(path, max_bytes=2**28) == (odd_tree / path).read_bytes()
    assert len(store.requests()) - before == len(paths)
