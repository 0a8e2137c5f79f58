"""Check the server and credentials in the environment (AWS_...) before a client is made."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from mission9.errors import ConfigError
from mission9.storage.s3.profile import is_profile_there, profile_name, profile_region

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
ROLE_ADDRESSES = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_ENDPOINT_URL_STS")
_ROLES = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE")
_UNSIGNED = "AWS_SKIP_SIGNATURE"

_URL = re.compile(r"https?://([\w.-]+|\[[0-9a-f:.]+\])(:\d+)?(/[\w./~%-]*)?", re.IGNORECASE | re.ASCII)

# The spellings that obstore accepts.
_YES, _NO = {"1", "true", "on", "yes", "y"}, {"0", "false", "off", "no", "n", ""}


def endpoint() -> str:
    """The endpoint named in the environment; empty for Amazon's own."""
    return next(filter(None, map(os.environ.get, _ENDPOINTS)), "")


def region() -> str:
    """The region named in the environment, else in the profile; empty if neither names one."""
    return next(filter(None, map(os.environ.get, _REGIONS)), "") or profile_region()


def is_unsigned() -> bool:
    """Return True if requests are unsigned, as for a public bucket."""
    return os.environ.get(_UNSIGNED, "").lower() in _YES


def describe_credentials() -> str:
    """Name the source of credentials; empty if none is set, when the machine's own role is used."""
    if all(map(os.environ.get, _KEYS)):
        return "of the environment"
    if is_unsigned():
        return f"none are used ({_UNSIGNED})"
    if any(map(os.environ.get, _ROLES)) and not os.environ.get("AWS_PROFILE"):
        return "of this task's role"
    return f"of the profile {profile_name()}" if is_profile_there() else ""


def is_loopback(url: str) -> bool:
    """Return True if a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_environment() -> None:
    """Refuse settings that no client can use.

    Raises:
        ConfigError: a variable is not valid (it is named), or the endpoint is not encrypted.
    """
    for name in (*_KEYS, "AWS_SESSION_TOKEN", *_REGIONS):
        value = os.environ.get(name, "")
        if not (value.isascii() and value.isprintable() and " " not in value):
            raise ConfigError(f"{name} contains a space, a line break or an unprintable character: remove it")
    missing = [name for name in _KEYS if not os.environ.get(name)]
    if len(missing) == 1:
        raise ConfigError(f"{missing[0]} is not set, but half of a key pair is: set both of {', '.join(_KEYS)}")
    if os.environ.get(_UNSIGNED, "").lower() not in _YES | _NO:
        raise ConfigError(f"{_UNSIGNED} is {os.environ[_UNSIGNED]!r}: set it to true or false")
    for name in filter(os.environ.get, _ENDPOINTS):
        _check_endpoint(name, os.environ[name])


def _check_endpoint(name: str, url: str) -> None:
    if not _URL.fullmatch(url) or not _has_port(url):
        raise ConfigError(f"{name} is {url!r}, not a server's address: set https://HOST or https://HOST:PORT")
    if url.lower().startswith("http://") and not is_loopback(url):
        raise ConfigError(
            f"the endpoint {url} ({name}) is not encrypted, as only one on this machine may be: set https://"
        )


def _has_port(url: str) -> bool:
    """Return True if the port in a URL is valid or absent."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
