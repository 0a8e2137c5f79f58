"""The one client of a process for each bucket, and its retries."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mission9.errors import SetupError
from mission9.storage.s3.environment import check_environment, describe_credentials, endpoint, is_unsigned, region
from mission9.storage.s3.profile import credentials_of_profile

if TYPE_CHECKING:
    from obstore.store import S3Store

# Responses 500 and 503, timeouts and broken connections are retried, with exponential backoff and jitter; 403 and 404
# are not. One minute in all, so that a dead server is reported within it.
MAX_TRIES = 10
PATIENCE = timedelta(seconds=60)
_FIRST_WAIT, _LONGEST_WAIT, _LONGER = timedelta(milliseconds=100), timedelta(seconds=8), 2

AT_ONCE = 32  # concurrent requests, which wait for the network, not for a core

# Long enough for a body of 256 MB on a slow line; a stalled connection fails sooner.
_REQUEST_TIMEOUT, _STILL_TIMEOUT, _CONNECT_TIMEOUT = timedelta(minutes=10), timedelta(seconds=30), timedelta(seconds=5)


def store_of(bucket: str) -> S3Store:
    """The client of this process for a bucket. It is thread-safe, and must not be sent to another process.

    Raises:
        SetupError: obstore is not installed, or boto3, which some profiles need.
        ConfigError: the environment is not usable, or the endpoint is not encrypted.
    """
    settings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _store_of(bucket, os.getpid(), settings)


@lru_cache(maxsize=32)
def _store_of(bucket: str, process: int, settings: tuple[tuple[str, str], ...]) -> S3Store:  # noqa: ARG001 (a key)
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise SetupError("obstore, which reads s3:// URLs, is not installed: pip install 'mission9[s3]'") from error
    check_environment()
    url = endpoint()
    options: dict[str, Any] = {"skip_signature": is_unsigned()}
    options |= {"endpoint": url.rstrip("/")} if url else {}
    provider = None
    if describe_credentials().startswith("of the profile"):
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
            "max_retries": MAX_TRIES,
            "retry_timeout": PATIENCE,
            "backoff": {"init_backoff": _FIRST_WAIT, "max_backoff": _LONGEST_WAIT, "base": _LONGER},
        },
        credential_provider=provider,
        **options,
    )
