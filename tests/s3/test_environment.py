"""Servers, credentials and regions from the environment and the profiles; no request is sent here."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore import UNSIGNED

from mission9.errors import ConfigError
from mission9.storage.s3.admin_client import control
from mission9.storage.s3.client import store_of
from mission9.storage.s3.environment import describe_credentials, region
from mission9.storage.s3.profile import credentials_of_profile


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    settings |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "planted-secret"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def of_profile(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("\n".join(["[default]", *lines]))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


MISTAKES = [
    ("AWS_ENDPOINT_URL", "localhost:9"),
    ("AWS_ENDPOINT_URL", "ftp://127.0.0.1:9"),
    ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:99999"),
    ("AWS_ENDPOINT_URL", "http://127.0.0.1:0"),
    ("AWS_ENDPOINT", "https:// x y"),
    ("AWS_ENDPOINT_URL", "http://[::1"),
    ("AWS_ENDPOINT_URL", "http://127.0.0.1:9\n"),
    ("AWS_ENDPOINT_URL", "https://"),
    ("AWS_ACCESS_KEY_ID", "key\n"),
    ("AWS_SECRET_ACCESS_KEY", "planted-secret "),
    ("AWS_SECRET_ACCESS_KEY", ""),
    ("AWS_SESSION_TOKEN", "planted-secret\r"),
    ("AWS_REGION", "eu west-1"),
    ("AWS_DEFAULT_REGION", "eu-west-1\n"),
    ("AWS_SKIP_SIGNATURE", "perhaps"),
]


@pytest.mark.parametrize(("name", "value"), MISTAKES)
def test_a_mistake_in_the_environment_is_told_by_the_name_of_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    for client in (lambda: store_of("bucket"), control):
        with pytest.raises(ConfigError, match=rf"^{name} (is|contains) .*: (remove|set) ") as error:
            client()
        assert "planted" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:9/",
        "http://[::1]:9",
        "https://s3.example.org",
        "HTTPS://my-server:443/base/path",
        "http://127.1.2.3",
    ],
)
def test_addresses_of_servers_are_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    store_of("bucket")
    control()


@pytest.mark.parametrize(
    ("value", "is_signed"), [("false", True), ("0", True), ("", True), ("true", False), ("1", False)]
)
def test_requests_without_a_signature_are_a_matter_of_yes_and_no(
    value: str, is_signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_profile(monkeypatch, "region = eu-west-3")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", value)
    assert describe_credentials() == ("of the profile default" if is_signed else "none are used (AWS_SKIP_SIGNATURE)")
    assert (control().meta.config.signature_version is not UNSIGNED) == is_signed


def test_the_region_is_that_of_the_profile_where_the_environment_has_keys_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("[default]\nregion = eu-west-3\n")
    assert describe_credentials() == "of the environment"
    assert region() == store_of("bucket").config["region"] == control().meta.region_name == "eu-west-3"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert region() == store_of("bucket").config["region"] == control().meta.region_name == "eu-west-1"


def test_credentials_are_asked_for_again_before_they_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expiry = datetime.now(UTC) + timedelta(minutes=16)
    keys = {"Version": 1, "AccessKeyId": "k", "SecretAccessKey": "s", "SessionToken": "t"}
    (tmp_path / "keys.json").write_text(json.dumps({**keys, "Expiration": expiry.isoformat()}))
    of_profile(monkeypatch, f"credential_process = cat {tmp_path / 'keys.json'}")
    _, provider = credentials_of_profile()
    assert provider()["expires_at"] <= expiry
