"""Credentials of a profile in ~/.aws, as `aws configure` writes them."""

from __future__ import annotations

import configparser
import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from mission9.errors import ConfigError, SetupError

# What obstore calls what a profile holds.
_NAMES = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
}

# What boto3 gives is good for that long at least: it renews what has ten minutes left.
_KEPT = timedelta(minutes=10)


def profile_name() -> str:
    """The profile that the environment names."""
    return os.environ.get("AWS_PROFILE") or "default"


def is_profile_there() -> bool:
    """Tell whether a profile is asked for, or there is a default one."""
    return bool(os.environ.get("AWS_PROFILE")) or bool(_settings())


def profile_region() -> str:
    """The region of the profile, if there is one that has one."""
    return _settings().get("region", "")


def credentials_of_profile() -> tuple[dict[str, Any], Any]:
    """Settings for a client, and whoever renews them where they pass: single sign-on, assumed roles.

    Raises:
        ConfigError: there is no such profile, or nothing in it.
        SetupError: boto3 is not installed, which knows such profiles.
    """
    found = _settings()
    if not found:
        raise ConfigError(f"there is no profile {profile_name()} in ~/.aws (AWS_PROFILE): see aws configure")
    kept = {ours: found[theirs] for theirs, ours in _NAMES.items() if theirs in found}
    if "access_key_id" in kept and "secret_access_key" in kept:
        return kept, None
    if importlib.util.find_spec("boto3") is None:
        raise SetupError(
            f"the profile {profile_name()} holds no keys, but a way to get some: pip install 'mission9[s3]'"
        )
    return _by_boto3()


def _by_boto3() -> tuple[dict[str, Any], Any]:
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        provider = Boto3CredentialProvider(boto3.Session(), ttl=_KEPT)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"the profile {profile_name()} gives no credentials ({error}): see aws sso login") from error
    config: dict[str, Any] = {**provider.config}
    return config, provider


def _settings() -> dict[str, str]:
    """Return what the files of settings and of credentials say of the profile, the latter before the former."""
    parser = configparser.RawConfigParser()
    home = Path("~/.aws").expanduser()
    files = [
        os.environ.get("AWS_CONFIG_FILE") or home / "config",
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials",
    ]
    try:
        parser.read(files)
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"the profiles in {files[0]} or {files[1]} cannot be read: mend the file") from error
    name = profile_name()
    sections = [section for section in (f"profile {name}", name) if parser.has_section(section)]
    return {key: value for section in sections for key, value in parser.items(section)}
