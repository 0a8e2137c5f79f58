"""Kaggle's own client against a server on the loopback that answers as Kaggle does. Kaggle itself was never asked."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mission9.datasets.fetch.fetch_dataset import SOURCE
from tests.datasets.fetch.conftest import dataset, make_zip
from tests.datasets.fetch.test_fetch_dataset import DEFAULT, images_below, wanted
from tests.support.forks import Ended, Forks
from tests.support.optional import skip_without

skip_without("kagglehub", "pip install 'mission9[fetch]'")

TOKEN = "KGAT_a-secret-token"


class Kaggle:
    """A server's content, its failures, and the requests that it received."""

    def __init__(self) -> None:
        self.port = 0
        self.archive = b""
        self.status = 200
        self.cut_after: int | None = None
        self.says_other_hash = False
        self.asked: list[tuple[str, Any, str | None]] = []


@pytest.fixture
def kaggle() -> Iterator[Kaggle]:
    state = Kaggle()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((urlsplit(self.path).path, request, self.headers["Authorization"]))
            if state.status != 200:
                self.send_error(state.status)
                return
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{state.port}/archive.zip")
            self.end_headers()

        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            state.asked.append((urlsplit(self.path).path, start, self.headers["Authorization"]))
            content = state.archive[start:]
            digest = hashlib.md5(state.archive if not state.says_other_hash else b"").digest()
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", "application/zip")
            self.send_header("x-goog-hash", f"md5={base64.b64encode(digest).decode()}")
            self.end_headers()
            self.wfile.write(content[: state.cut_after])
            state.cut_after = None

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield state
        server.shutdown()


Fetch = Callable[..., Ended]


@pytest.fixture
def fetch(forks: Forks) -> Fetch:
    def fetch(kaggle: Kaggle, output: Path, *options: str) -> Ended:
        # The client's own address for tests is port 80: it comes to the server as to a proxy.
        proxy = {"http_proxy": f"http://127.0.0.1:{kaggle.port}", "no_proxy": ""}
        asks = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "KAGGLE_API_TOKEN": TOKEN, "HOME": str(output.parent)}
        return forks.run("fetch", "--output", str(output), *options, environment=asks | proxy)

    return fetch


def test_the_pinned_version_comes_from_kaggle(
    kaggle: Kaggle, fetch: Fetch, tmp_path: Path, pictures: list[bytes]
) -> None:
    files = dataset("C", pictures)
    kaggle.archive = make_zip(tmp_path / "kaggle.zip", files).read_bytes()
    done = fetch(kaggle, tmp_path / "dataset")
    assert done.returncode == 0, done.stderr
    (path, request, authorization), _ = kaggle.asked
    assert path.endswith("/datasets.DatasetApiService/DownloadDataset")
    assert (request["ownerSlug"], request["datasetSlug"], request["datasetVersionNumber"]) == ("moltean", "fruits", 100)
    assert authorization == f"Bearer {TOKEN}"
    assert images_below(tmp_path / "dataset" / DEFAULT) == wanted(files, "fruits-360_100x100/fruits-360")
    facts = json.loads((tmp_path / "dataset" / "fruits-360_dataset" / SOURCE).read_bytes())
    assert (facts["dataset"], facts["version"]) == ("moltean/fruits", 100)
    assert facts["archive_sha256"] == hashlib.sha256(kaggle.archive).hexdigest()
    assert os.listdir(tmp_path / "dataset") == ["fruits-360_dataset"]
    # As an earlier call leaves it that is killed when the folder has just appeared.
    left = tmp_path / "dataset" / ".mission9-fetch" / "moltean-fruits-100.zip"
    left.parent.mkdir()
    left.write_bytes(kaggle.archive)
    again = fetch(kaggle, tmp_path / "dataset")
    assert "there already" in again.stdout
    assert os.listdir(tmp_path / "dataset") == ["fruits-360_dataset"]
    assert len(kaggle.asked) == 2
    assert fetch(kaggle, tmp_path / "dataset", "--version", "11").returncode == 2


def test_a_download_that_was_cut_goes_on(kaggle: Kaggle, fetch: Fetch, tmp_path: Path) -> None:
    kaggle.archive = make_zip(tmp_path / "kaggle.zip", dataset("A", [os.urandom(2_000_000)] * 10)).read_bytes()
    kaggle.cut_after = 6_000_000
    cut = fetch(kaggle, tmp_path / "dataset")
    assert cut.returncode == 1
    assert "mission9: Kaggle cannot be reached" in cut.stderr
    assert not (tmp_path / "dataset" / "fruits-360_dataset").exists()
    done = fetch(kaggle, tmp_path / "dataset")
    assert done.returncode == 0, done.stderr
    assert len(images_below(tmp_path / "dataset" / DEFAULT)) == 5
    starts = [start for path, start, _ in kaggle.asked if path == "/archive.zip"]
    assert starts[-1] > 5_000_000


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, 1, "set KAGGLE_API_TOKEN"),
        (403, 1, "set KAGGLE_API_TOKEN"),
        (404, 2, "another --version"),
        (500, 1, "(500)"),
    ],
)
def test_what_kaggle_refuses_is_told(
    status: int, code: int, words: str, kaggle: Kaggle, fetch: Fetch, tmp_path: Path
) -> None:
    kaggle.status = status
    done = fetch(kaggle, tmp_path / "dataset")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "dataset").exists()


def test_what_comes_damaged_is_not_unpacked(
    kaggle: Kaggle, fetch: Fetch, tmp_path: Path, pictures: list[bytes]
) -> None:
    kaggle.archive = make_zip(tmp_path / "kaggle.zip", dataset("A", pictures)).read_bytes()
    kaggle.says_other_hash = True
    done = fetch(kaggle, tmp_path / "dataset")
    assert done.returncode == 1
    assert "what came from Kaggle is damaged" in done.stderr
    assert not (tmp_path / "dataset").exists()


def test_no_network_is_told(fetch: Fetch, tmp_path: Path) -> None:
    nobody = Kaggle()
    with socket.socket() as deaf:  # nobody else is given its port, and it answers nobody
        deaf.bind(("127.0.0.1", 0))
        nobody.port = deaf.getsockname()[1]
        done = fetch(nobody, tmp_path / "dataset")
    assert done.returncode == 1, done.stderr
    assert "Kaggle cannot be reached" in done.stderr
    assert "--archive FILE.zip" in done.stderr
