"""boto3's client, for what obstore does not know: settings of buckets, and versions of objects."""

from __future__ import annotations

from typing import Any

from mission9.errors import ConfigError, SetupError
from mission9.storage.s3.client import AT_ONCE
from mission9.storage.s3.environment import check_environment, endpoint, is_unsigned, region

_CONNECT_TIMEOUT, _READ_TIMEOUT, _TRIES = 5, 30, 5  # seconds, seconds, times


def control() -> Any:
    """A client of the server that the environment names, with its credentials; for this process, any thread.

    Raises:
        SetupError: boto3 is not installed.
        ConfigError: the profile cannot be used, nor what the environment says, or the endpoint would be reached without
            encryption.
    """
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise SetupError(
            "boto3 is not installed, which asks buckets for their settings and versions: pip install 'mission9[s3]'; "
            "a run that need not ask goes on with --policy none"
        ) from error
    check_environment()
    url = endpoint()
    settings: dict[str, Any] = {"signature_version": UNSIGNED} if is_unsigned() else {}
    settings |= {"s3": {"addressing_style": "path"}} if url else {}
    patience = {"total_max_attempts": _TRIES, "mode": "standard"}
    times = {"connect_timeout": _CONNECT_TIMEOUT, "read_timeout": _READ_TIMEOUT}
    config = Config(max_pool_connections=AT_ONCE, retries=patience, **times, **settings)
    # Where neither the environment nor a profile names a region, boto3 finds that of each bucket by itself.
    region_name = region() or "us-east-1"
    try:
        return boto3.Session().client("s3", endpoint_url=url or None, region_name=region_name, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"boto3 cannot ask for settings of buckets: {error}; set AWS_REGION or mend it") from error
