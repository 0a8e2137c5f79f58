"""Credentials of a profile in ~/.aws, as `aws configure` writes them."""

from __future__ import annotations

import configparser
import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from mission9.errors import ConfigError, SetupError

# obstore's names for the settings of a profile.
_NAMES = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
}

# boto3's credentials are valid for at least this long: it renews those with ten minutes left.
_KEPT = timedelta(minutes=10)


def profile_name() -> str:
    """The name of the profile, from the environment."""
    return os.environ.get("AWS_PROFILE") or "default"


def is_profile_there() -> bool:
    """Return True if a profile is named, or there is a default one."""
    return bool(os.environ.get("AWS_PROFILE")) or bool(_settings())


def profile_region() -> str:
    """The region of the profile; empty if there is none."""
    return _settings().get("region", "")


def credentials_of_profile() -> tuple[dict[str, Any], Any]:
    """The profile's settings for a client, and a provider that renews temporary ones (single sign-on, assumed roles).

    Raises:
        ConfigError: the profile does not exist, or is empty.
        SetupError: boto3, which such a profile needs, is not installed.
    """
    found = _settings()
    if not found:
        raise ConfigError(f"the profile {profile_name()} is not in ~/.aws (AWS_PROFILE): run aws configure")
    kept = {ours: found[theirs] for theirs, ours in _NAMES.items() if theirs in found}
    if "access_key_id" in kept and "secret_access_key" in kept:
        return kept, None
    if importlib.util.find_spec("boto3") is None:
        raise SetupError(f"the profile {profile_name()} needs boto3 to obtain its keys: pip install 'mission9[s3]'")
    return _by_boto3()


def _by_boto3() -> tuple[dict[str, Any], Any]:
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        provider = Boto3CredentialProvider(boto3.Session(), ttl=_KEPT)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the profile {profile_name()} has no credentials ({error}): run aws sso login") from error
    config: dict[str, Any] = {**provider.config}
    return config, provider


def _settings() -> dict[str, str]:
    """The settings of the profile: its credentials file, then its config file."""
    parser = configparser.RawConfigParser()
    home = Path("~/.aws").expanduser()
    files = [
        os.environ.get("AWS_CONFIG_FILE") or home / "config",
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials",
    ]
    try:
        parser.read(files)
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the profiles in {files[0]} or {files[1]}: fix the file") from error
    name = profile_name()
    sections = [section for section in (f"profile {name}", name) if parser.has_section(section)]
    return {key: value for section in sections for key, value in parser.items(section)}
