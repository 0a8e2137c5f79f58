"""What a session opens to others."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import psutil
import pytest
from pyspark.sql import SparkSession


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


@pytest.mark.parametrize(("asked", "address"), [(False, "None"), (True, "http://localhost:")])
def test_sparks_web_page_is_there_for_who_asks(asked: bool, address: str) -> None:
    program = (
        "from mission9 import RunConfig, session as s\nprint(s.ui_address(s.start_session(RunConfig(spark_ui={}))))"
    )
    command = [sys.executable, "-c", program.format(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith(address)
