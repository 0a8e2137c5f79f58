"""The page of a result whose images are out of reach: it does without thumbnails, and nobody is asked for long."""

from __future__ import annotations

import itertools
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mission9.cli import main
from mission9.html_report import write_report
from mission9.output.layout import PAGE
from mission9.results.reader import Results
from mission9.sources import open_source
from tests.support.cluster import free_port


class Refusing(socketserver.StreamRequestHandler):
    """An FTP server that lets everybody in, and answers everything else by 550."""

    asked = itertools.count()

    def handle(self) -> None:
        self.wfile.write(b"220 Here.\r\n")
        while words := self.rfile.readline().split():
            next(Refusing.asked)
            answers = {b"USER": b"331 Password.", b"PASS": b"230 In."}
            self.wfile.write(answers.get(words[0].upper(), b"550 No.") + b"\r\n")


@pytest.fixture
def refusing() -> Iterator[str]:
    open_source.cache_clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"ftp://127.0.0.1:{server.server_address[1]}/images"
        server.shutdown()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mission9.sources.fsspec._PAUSE", 0.0)


def test_a_page_is_made_of_a_result_whose_images_are_out_of_reach(
    few: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    port = free_port()
    places = [f"ftp://127.0.0.1:{port}/images", f"webhdfs://127.0.0.1:{port}/images", "nosuchstore://images"]
    places += ["zip://::none.zip", "memory://nothing-here"]
    for number, place in enumerate(places):
        caplog.clear()
        write_report(few, tmp_path / f"{number}.html", place)
        assert b"<html" in (tmp_path / f"{number}.html").read_bytes(), place
        assert caplog.text.count("no thumbnails: ") == 1, place


def test_a_server_that_refuses_everything_is_asked_a_few_times(refusing: str, results: Results, tmp_path: Path) -> None:
    write_report(results, tmp_path / PAGE, refusing)
    assert (tmp_path / PAGE).exists()
    assert next(Refusing.asked) < 200  # of 193 images, each by several commands


def test_the_command_ends_well(few: Results, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["report", str(few.root), "--input", f"ftp://127.0.0.1:{free_port()}/images"]) == 0
    (few.root / PAGE).unlink()
    assert caplog.text.count("no thumbnails: ") == 1
