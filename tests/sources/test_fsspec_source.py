"""Images in stores that fsspec knows: a real FTP server on the loopback, and a store in memory."""

from __future__ import annotations

import importlib.util
import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.ftp import FTPFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from mission9.cli import main
from mission9.concurrency.prefetch import REMOTE, prefetch_map
from mission9.config import RunConfig
from mission9.errors import ConfigError, ImageError, InputError, SetupError
from mission9.pack.make_pack import make_pack
from mission9.pipeline.run import run
from mission9.results.verify import verify_output
from mission9.sources import find_root, open_source, resolve_root
from mission9.sources.list_images import has_more_images, list_images
from mission9.sources.listing import Listing, ListingCounts
from mission9.stages.prepare_images import ImageRow
from mission9.storage.location import real_root
from tests.pack.test_pack import assert_holds, features_run, rows_of
from tests.sources.conftest import free_port, wait_for
from tests.support.hostile import tables

USER, PASSWORD = "reader", "not-to-be-told"
MOST = 2**28


@pytest.fixture
def ftp(odd_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the odd tree on an FTP server that asks for a password."""
    if importlib.util.find_spec("pyftpdlib") is None:
        pytest.skip("pyftpdlib is not installed: requirements-dev.txt")
    port = free_port()
    # In a process of its own: it takes modules that this Python warns of.
    command = [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-d", str(odd_tree.parent)]
    server = subprocess.Popen([*command, "-u", USER, "-P", PASSWORD], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        monkeypatch.setenv("FSSPEC_FTP_USERNAME", USER)
        monkeypatch.setenv("FSSPEC_FTP_PASSWORD", PASSWORD)
        fsspec.config.set_conf_env(fsspec.config.conf)
        open_source.cache_clear()
        yield f"ftp://127.0.0.1:{port}/{odd_tree.name}"
    finally:
        fsspec.config.conf.pop("ftp", None)
        open_source.cache_clear()
        server.kill()
        server.wait()


@pytest.mark.slow
def test_images_on_an_ftp_server_give_the_same_as_those_of_the_folder(
    ftp: str, odd_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, here = rows_of(ftp), rows_of(odd_tree)
    assert there[0] == here[0]
    assert (there[1].listed, there[1].skipped) == (here[1].listed, here[1].skipped)
    assert has_more_images(find_root(ftp), 20)
    features_run(odd_tree, tmp_path / "wanted")
    command = ["run", "--input", ftp, "--output", str(tmp_path / "found"), "--weights", "demo", "--components", "3"]
    assert main([*command, "--max-reject-rate", "0.5", "--runner", "local", "--workers", "2"]) == 0
    assert tables(tmp_path / "found") == tables(tmp_path / "wanted")
    assert not list(verify_output(str(tmp_path / "found")))
    said = capsys.readouterr()
    told = said.out + said.err + (tmp_path / "found" / "run.json").read_text()
    assert PASSWORD not in told
    os.utime(odd_tree / "Training/a/1.jpg", (1_700_000_001, 1_700_000_001))
    config = {"weights": "demo", "components": 3, "max_reject_rate": 0.5, "no_report": True}
    assert run(RunConfig(input=ftp, output=str(tmp_path / "wanted"), **config)).images_inferred == 1


def test_images_on_an_ftp_server_are_packed(ftp: str, odd_tree: Path, tmp_path: Path) -> None:
    report = make_pack(ftp, str(tmp_path / "pack"))
    assert (report.listed, report.packed) == (21, 21)
    assert_holds(tmp_path / "pack", odd_tree)


def test_what_cannot_be_read_on_a_server_is_a_reject(ftp: str, odd_tree: Path) -> None:
    source = open_source(resolve_root(ftp))
    (odd_tree / "Training/a/1.jpg").unlink()
    with pytest.raises(ImageError) as gone:
        source.read("Training/a/1.jpg", max_bytes=MOST)
    assert gone.value.reason in ("vanished", "unreadable")
    with pytest.raises(ImageError, match="bytes exceed the limit of 10"):
        source.read("Training/a/2.jpg", max_bytes=10)
    assert source.read("Training/a/empty.jpg", max_bytes=MOST) == b""


def test_servers_and_folders_that_are_not_there_are_told(
    ftp: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.sources.fsspec._PAUSE", 0.001)
    for place, code, words in (
        (f"{ftp}/none", 2, "there is no folder"),
        ("ftp://127.0.0.1:9/x", 2, "cannot be reached"),
        ("nosuch://x/y", 1, "Python cannot reach"),
        ("abfs://container/images", 1, "Python cannot reach"),
        ("hdfs://namenode/images", 1, "needs Hadoop's library libhdfs"),
        ("memory://nothing/here", 2, "there is no folder"),
    ):
        command = ["run", "--input", place, "--output", str(tmp_path / "output"), "--weights", "demo"]
        assert main(command) == code, place
        said = capsys.readouterr().err
        assert words in said, said
        assert "Traceback" not in said
        assert PASSWORD not in said
    assert not (tmp_path / "output").exists()


def read_in_shards(root: str, paths: list[str]) -> None:
    """All images of a source five times over, by threads that are new each time, as shards have them."""
    source = open_source(resolve_root(root))
    rows = [ImageRow(path, "all", "a", 1000) for path in paths]
    for _ in range(5):
        found = list(prefetch_map(rows, lambda row: source.read(row.path, max_bytes=MOST), source.ahead))
        assert all(found)


IMAGES = [f"Training/{label}/{number}.jpg" for label in "ab" for number in range(6)]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FTPFileSystem]:
    """The connections to FTP servers that are made from now on."""
    found, connect = list[FTPFileSystem](), FTPFileSystem._connect

    def counting(fs: FTPFileSystem) -> None:
        found.append(fs)
        connect(fs)

    monkeypatch.setattr(FTPFileSystem, "_connect", counting)
    return found


def test_connections_are_kept_from_one_shard_to_the_next(ftp: str, made: list[FTPFileSystem]) -> None:
    read_in_shards(ftp, IMAGES)
    assert len(made) <= open_source(resolve_root(ftp)).ahead.threads


def test_connections_that_a_server_closed_are_made_anew(
    ftp: str, made: list[FTPFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.sources.fsspec._PAUSE", 0.001)
    read_in_shards(ftp, IMAGES)
    for each in made:
        each.ftp.sock.shutdown(socket.SHUT_RDWR)
    read_in_shards(ftp, IMAGES)
    kept = len(made)
    monkeypatch.setattr("mission9.sources.fsspec_connections._FRESH", 0.0)  # those idle for long are not even tried
    read_in_shards(ftp, IMAGES[:1])
    assert len(made) == kept + 5


class AsyncMemory(AsyncFileSystemWrapper):  # type: ignore[misc]
    """The store in memory, asked as those of clouds are."""

    protocol = "asyncmemory"
    made = 0

    def __init__(self, **_: object) -> None:
        super().__init__(fs=MemoryFileSystem())
        type(self).made += 1

    def _open(self, path: str, **_: object) -> io.BytesIO:
        return io.BytesIO(self.cat_file(path))


def test_a_connection_that_may_be_shared_is_the_only_one(odd_tree: Path) -> None:
    fsspec.register_implementation("asyncmemory", AsyncMemory, clobber=True)
    store = fsspec.filesystem("memory")
    try:
        store.put(str(odd_tree), "/fruits", recursive=True)
        open_source.cache_clear()
        assert rows_of("asyncmemory://fruits")[1].listed == rows_of(odd_tree)[1].listed
        read_in_shards("asyncmemory://fruits", IMAGES)
        assert AsyncMemory.made == 1
        assert open_source(resolve_root("asyncmemory://fruits")).ahead == REMOTE
    finally:
        store.rm("/fruits", recursive=True)
        open_source.cache_clear()


def test_a_store_in_memory(odd_tree: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    try:
        (odd_tree / "Training/a/2024").mkdir()
        (odd_tree / "Training/a/1.jpg").rename(odd_tree / "Training/a/2024/1.jpg")
        store.put(str(odd_tree), "/fruits", recursive=True)
        wanted, found = rows_of(odd_tree)
        rows, told = rows_of("memory://fruits")
        without_times = [{**row, "modified": 0} for row in rows]
        assert without_times == [{**row, "modified": 0} for row in wanted]
        assert all(row["modified"] for row in rows)
        assert told.skipped == found.skipped
        by_variety = [
            list_images(find_root(root), ListingCounts(), Listing(label_level=1))
            for root in (str(odd_tree), "memory://fruits")
        ]
        labels = [[label for batch in batches for label in batch["label"].to_pylist()] for batches in by_variety]
        assert labels[0] == labels[1] != [row["label"] for row in rows]
        source = open_source(resolve_root("memory://fruits"))
        for row in rows:
            assert source.read(row["path"], max_bytes=MOST) == (odd_tree / row["path"]).read_bytes()
    finally:
        store.rm("/fruits", recursive=True)


def test_a_file_address_and_a_mounted_volume_are_folders(tree: Path, tmp_path: Path) -> None:
    assert real_root(f"file://{tree}") == real_root(str(tree)) == os.path.realpath(tree)
    assert RunConfig(input=f"file://{tree}").input == str(tree)
    # As Databricks mounts them: /Volumes/CATALOG/SCHEMA/VOLUME.
    volume = tmp_path / "Volumes" / "main" / "default" / "fruits"
    volume.parent.mkdir(parents=True)
    tree.rename(volume)
    features_run(volume, tmp_path / "Volumes" / "main" / "default" / "results")
    assert rows_of(volume)[0]


def test_results_go_to_folders_and_buckets_only(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "pack"):
        assert main([command, "--input", str(tree), "--output", "gs://bucket/results"]) == 2
        assert "folder" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="credentials are not allowed in a URL"):
        RunConfig(input=f"ftp://{USER}:{PASSWORD}@127.0.0.1/x")
    assert RunConfig(input="abfs://container@account.dfs.core.windows.net/x/").input.endswith("windows.net/x")


def test_errors_of_stores_are_of_two_kinds() -> None:
    with pytest.raises(SetupError):
        open_source("nosuch://x/y")
    with pytest.raises(InputError):
        rows_of("memory://nothing/here")
