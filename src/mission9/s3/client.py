"""The one client that a process has of each bucket; where to, as whom, and how patiently the environment says."""

from __future__ import annotations

import ipaddress
import os
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mission9.errors import ConfigError, SetupError
from mission9.s3.profile import credentials_of_profile, is_profile_there, profile_name

if TYPE_CHECKING:
    from obstore.store import S3Store

# 500, 503, timeouts and connections that break are tried again, waiting longer each time, by chance up to twice as
# long as the last; 403 and 404 are not. A minute in all, so that a server that is gone is told within it.
MOST_TRIES = 10
PATIENCE = timedelta(seconds=60)
_FIRST_WAIT, _LONGEST_WAIT, _LONGER = timedelta(milliseconds=100), timedelta(seconds=8), 2

AT_ONCE = 32  # requests at a time, which wait for the network, not for a core

# Of a body of 256 MB on a slow line; one that stands still is given up sooner.
_REQUEST_TIMEOUT, _STILL_TIMEOUT, _CONNECT_TIMEOUT = timedelta(minutes=10), timedelta(seconds=30), timedelta(seconds=5)

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ROLES = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE")


def store_of(bucket: str) -> S3Store:
    """The client that this process has of a bucket; any thread may use it, and it must not be sent to another process.

    Raises:
        SetupError: obstore is not installed, or boto3, which some profiles need.
        ConfigError: the endpoint would be reached without encryption.
    """
    settings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _store_of(bucket, os.getpid(), settings)


def endpoint() -> str:
    """The address of the server that the environment names; empty for Amazon's own."""
    return next(filter(None, map(os.environ.get, _ENDPOINTS)), "")


def region() -> str:
    """The region that the environment names; empty where it names none."""
    return next(filter(None, map(os.environ.get, _REGIONS)), "")


def credentials_told() -> str:
    """Where credentials come from, in words; empty where nothing says so, and the machine's own role is asked."""
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        return "of the environment"
    if os.environ.get("AWS_SKIP_SIGNATURE"):
        return "none are used (AWS_SKIP_SIGNATURE)"
    if any(map(os.environ.get, _ROLES)) and not os.environ.get("AWS_PROFILE"):
        return "of this task's role"
    return f"of the profile {profile_name()}" if is_profile_there() else ""


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache(maxsize=32)
def _store_of(bucket: str, process: int, settings: tuple[tuple[str, str], ...]) -> S3Store:  # noqa: ARG001 (a key)
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise SetupError("obstore is not installed, which reads s3:// addresses: pip install 'mission9[s3]'") from error
    url = endpoint()
    if url.lower().startswith("http://") and not is_loopback(url):
        raise ConfigError(f"the endpoint {url} is not encrypted, which only one on this machine may be: give https://")
    options: dict[str, Any] = {"endpoint": url.rstrip("/")} if url else {}
    provider = None
    if credentials_told().startswith("of the profile"):
        keys, provider = credentials_of_profile()
        options |= keys
    options |= {"region": region()} if region() else {}
    return S3Store(
        bucket,
        client_options={
            "allow_http": url.lower().startswith("http://"),
            "timeout": _REQUEST_TIMEOUT,
            "read_timeout": _STILL_TIMEOUT,
            "connect_timeout": _CONNECT_TIMEOUT,
        },
        retry_config={
            "max_retries": MOST_TRIES,
            "retry_timeout": PATIENCE,
            "backoff": {"init_backoff": _FIRST_WAIT, "max_backoff": _LONGEST_WAIT, "base": _LONGER},
        },
        credential_provider=provider,
        **options,
    )
