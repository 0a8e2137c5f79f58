"""A real S3 server on the loopback, OpenStack Swift, for the tests in this folder; and images that lie there."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest

from mission9.config import RunConfig
from mission9.pipeline.run import run
from tests.conftest import InProcessRunner
from tests.support.finished import write_fruits

obstore = pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mission9[s3]'")

from scripts.s3_server import Server, find_swift, s3_server  # noqa: E402

PAGE_KEYS = 100  # of a listing, so that few objects are several pages

_MEMORY = Path("/dev/shm")
_NEEDED = 4 << 30  # bytes, far more than the tests store
_NOTES = "mission9/micro-batches.json"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if find_swift() is None:
        pytest.skip("swift is not installed, the S3 server of these tests: make s3-server")
    with _server_folder(tmp_path_factory) as folder, s3_server(folder / "server", page_keys=PAGE_KEYS) as server:
        yield server


@contextmanager
def _server_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one for Swift: on a disk each object waits until it is written."""
    if not _can_hold_objects(_MEMORY):
        yield tmp_path_factory.mktemp("swift")
        return
    with tempfile.TemporaryDirectory(prefix="mission9-swift-", dir=_MEMORY, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _can_hold_objects(folder: Path) -> bool:
    """Return True if the folder supports Swift's extended attributes, and has enough space."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            os.setxattr(file.name, b"user.swift.metadata", b"1")
        return shutil.disk_usage(folder).free > _NEEDED
    except (AttributeError, OSError):
        return False


@dataclass(frozen=True)
class Bucket:
    """A bucket of a test's own, which the environment of the test leads to."""

    name: str
    server: Server

    def __str__(self) -> str:
        return f"s3://{self.name}"

    @property
    def keys(self) -> list[str]:
        return sorted(facts["path"] for page in obstore.list(self.server.bucket(self.name)) for facts in page)

    def put(self, key: str, content: bytes) -> None:
        """Put an object; again, if the server answers without an ETag, as for an object that seems newer to it."""
        for tries_left in reversed(range(5)):
            try:
                obstore.put(self.server.bucket(self.name), key, content)
                return
            except obstore.exceptions.GenericError as error:
                if "MissingEtag" not in str(error) or not tries_left:
                    raise

    def get(self, key: str) -> bytes:
        return bytes(obstore.get(self.server.bucket(self.name), key).bytes())

    def delete(self, *keys: str) -> None:
        obstore.delete(self.server.bucket(self.name), list(keys))

    def put_odd(self, key: str, content: bytes) -> None:
        """Make an object whose key obstore cannot name."""
        import boto3
        from botocore.config import Config

        client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        client.put_object(Bucket=self.name, Key=key, Body=content)

    def upload(self, folder: Path, prefix: str = "images") -> str:
        self.server.upload(folder, self.name, prefix)
        return f"{self}/{prefix}"


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This machine's saved measurements, if any: with an empty cache each process takes seconds to make them."""
    kept = tmp_path_factory.mktemp("notes") / "notes.json"
    users = platformdirs.user_cache_path() / _NOTES
    if users.exists():
        shutil.copyfile(users, kept)
    return kept


def new_cache(folder: Path, notes: Path) -> str:
    """A user's cache that holds nothing but the machine's notes of itself."""
    (folder / _NOTES).parent.mkdir(parents=True)
    if notes.exists():
        shutil.copyfile(notes, folder / _NOTES)
    return str(folder)


@pytest.fixture(autouse=True)
def _cache_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    cache = tmp_path_factory.mktemp("cache") / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", new_cache(cache, notes))
    yield
    if (cache / _NOTES).exists():
        shutil.copyfile(cache / _NOTES, notes)


@pytest.fixture(autouse=True)
def _locks_that_settle_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop the second in which a lock sees another that comes at the same time, but where tests are about that."""
    if request.path.stem != "test_lease":
        monkeypatch.setattr("mission9.storage.s3.lease._SETTLE", 0.0)


def enter(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment lead to a server, and to no other."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    enter(server, monkeypatch)
    made = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(made)
    return Bucket(made, server)


@pytest.fixture(scope="session")
def fruits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the generated sample 96 images: four varieties, 18 of Training and 6 of Test each."""
    return write_fruits(tmp_path_factory.mktemp("fruits") / "images", varieties=4, training=18, test=6)


@pytest.fixture(scope="session")
def fruits_there(server: Server, fruits: Path) -> str:
    """The address of these images in a bucket that tests only read."""
    server.make_bucket("fruits")
    server.upload(fruits, "fruits", "images")
    return "s3://fruits/images"


@pytest.fixture(scope="session")
def fruits_result(fruits: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The result of a run on these images in a folder, by this process alone."""
    output = str(tmp_path_factory.mktemp("wanted") / "results")
    run(RunConfig(input=str(fruits), output=output, weights="demo", components=5, no_report=True), InProcessRunner())
    return output
