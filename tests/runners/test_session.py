"""Spark sessions: ports, files and settings that other users can reach."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from mission9.runners import spark_session


def test_everything_that_a_local_session_opens_is_on_the_loopback(spark: SparkSession) -> None:
    opened = [
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert opened
    assert [address for address in opened if not is_loopback(address)] == []


def is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def test_what_java_says_comes_by_this_process_but_for_its_greeting(capsys: pytest.CaptureFixture[str]) -> None:
    said, says = os.pipe()
    os.write(says, b"WARNING: Using incubator modules: jdk.incubator.vector\nSpark ERROR \xff: no room\n")
    os.close(says)
    spark_session._pass_on(said)
    assert capsys.readouterr().err == "Spark ERROR \N{REPLACEMENT CHARACTER}: no room\n"


WEB_PAGES = """
from mission9 import RunConfig
from mission9.runners import spark_session
for asked in (False, True):
    started = spark_session.start_session(RunConfig(spark_ui=asked))
    print(spark_session.ui_address(started))
    started.stop()
"""


@pytest.mark.slow
def test_sparks_web_page_is_there_for_who_asks() -> None:
    done = subprocess.run([sys.executable, "-c", WEB_PAGES], capture_output=True, text=True, check=True, timeout=300)
    without, there = done.stdout.split()
    assert without == "None"
    assert there.startswith("http://localhost:")
    assert "incubator" not in done.stderr


@pytest.mark.parametrize(
    ("at", "published", "told"),
    [
        ("http://0.0.0.0:4040", "http://localhost:4049", "http://localhost:4049"),
        ("http://0.0.0.0:4041", "http://localhost:4049", None),  # nobody outside reaches it
        ("http://localhost:4041", "", "http://localhost:4041"),
        (None, "http://localhost:4049", None),
    ],
)
def test_sparks_web_page_has_the_address_by_which_it_is_reached(
    at: str | None, published: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_UI_PUBLISHED", published)
    started: Any = SimpleNamespace(sparkContext=SimpleNamespace(uiWebUrl=at))
    assert spark_session.ui_address(started) == told


@pytest.mark.parametrize("taken", ["file", "link to a folder", "link to nothing", "folder of all"])
def test_what_somebody_else_put_in_its_place_keeps_nobody_from_a_folder(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place, other = tmp_path / f"mission9-{os.geteuid()}", tmp_path / "other"
    other.mkdir(mode=0o700)
    if taken == "file":
        place.write_text("")
    elif taken == "folder of all":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.symlink_to(other if taken == "link to a folder" else tmp_path / "nowhere")
    found = Path(spark_session._private_folder())
    assert found not in (place, other)
    assert found.is_dir()
    assert found.stat().st_mode & 0o077 == 0


def test_sparks_folder_is_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert (
        spark_session._private_folder() == spark_session._private_folder() == str(tmp_path / f"mission9-{os.geteuid()}")
    )
