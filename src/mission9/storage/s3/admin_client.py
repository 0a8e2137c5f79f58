"""boto3's client, for requests that obstore lacks: bucket settings and object versions."""

from __future__ import annotations

from typing import Any

from mission9.errors import ConfigError, SetupError
from mission9.storage.s3.client import AT_ONCE
from mission9.storage.s3.environment import check_environment, endpoint, is_unsigned, region

_CONNECT_TIMEOUT, _READ_TIMEOUT, _TRIES = 5, 30, 5  # seconds, seconds, times


def control() -> Any:
    """The client of the server and credentials named in the environment; for this process, thread-safe.

    Raises:
        SetupError: boto3 is not installed.
        ConfigError: the profile or the environment is not usable, or the endpoint is not encrypted.
    """
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise SetupError(
            "boto3, which reads bucket settings and versions, is not installed: pip install 'mission9[s3]', "
            "or pass --policy none if the run does not need them"
        ) from error
    check_environment()
    url = endpoint()
    settings: dict[str, Any] = {"signature_version": UNSIGNED} if is_unsigned() else {}
    settings |= {"s3": {"addressing_style": "path"}} if url else {}
    patience = {"total_max_attempts": _TRIES, "mode": "standard"}
    times = {"connect_timeout": _CONNECT_TIMEOUT, "read_timeout": _READ_TIMEOUT}
    config = Config(max_pool_connections=AT_ONCE, retries=patience, **times, **settings)
    # Without a region in the environment or the profile, boto3 finds that of each bucket itself.
    region_name = region() or "us-east-1"
    try:
        return boto3.Session().client("s3", endpoint_url=url or None, region_name=region_name, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"boto3 cannot read bucket settings: {error}; set or fix AWS_REGION") from error
