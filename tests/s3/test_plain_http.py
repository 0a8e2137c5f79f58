"""No client is made that would reach a server elsewhere without TLS; that takes no server to find out."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'mission9[s3]'")

from mission9.errors import ConfigError
from mission9.storage.s3.admin_client import control
from mission9.storage.s3.client import store_of


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "planted-secret")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8080", "HTTP://s3.example.org", "http://127.0.0.1.example.org", "http://[2001:db8::1]:9"]
)
def test_a_server_elsewhere_is_not_reached_without_encryption(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, url)
    for client in (lambda: store_of("bucket"), control):
        with pytest.raises(ConfigError, match="is not encrypted, as only one on this machine may be"):
            client()
