"""Check every bucket and other store of a run against its policy before the run reads or writes anything."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mission9.errors import PolicyError
from mission9.options import PolicyName
from mission9.privacy.check import Check
from mission9.storage.location import local_path
from mission9.storage.s3.address import address_of

if TYPE_CHECKING:
    from mission9.config import RunConfig


# The settings that may name a bucket.
PLACES = ("input", "output", "weights", "pca_model", "estimate")


def policy_of(config: RunConfig) -> PolicyName:
    """The policy of a run: the configured one, else `eu` if images or results are in a bucket."""
    return config.policy or ("eu" if address_of(config.input) or address_of(config.output) else "none")


def buckets_of(config: RunConfig) -> list[str]:
    """The distinct buckets that a run reads or writes."""
    addresses = (address_of(getattr(config, name)) for name in PLACES)
    return list(dict.fromkeys(address.bucket for address in addresses if address))


def examine_policy(config: RunConfig) -> list[Check]:
    """Check each bucket of a run against its policy, and any unsupported store; nothing without a policy.

    Raises:
        SetupError: boto3 is not installed.
        StorageError: a bucket cannot be queried.
    """
    if policy_of(config) == "none":
        return []
    is_known = address_of(config.input) or local_path(config.input)
    checks = [] if is_known else [_unknown(config.input)]
    if buckets := buckets_of(config):
        from mission9.privacy.bucket_checks import check_bucket  # loads boto3

        checks += [check for bucket in buckets for check in check_bucket(bucket)]
    return checks


def _unknown(url: str) -> Check:
    """A failed check, for a store whose location and access cannot be queried."""
    remedy = "copy the images, or a pack of them, to a folder, or to a bucket that meets the policy"
    return Check(url, "store", is_met=False, found="its location and access cannot be queried", remedy=remedy)


def enforce_policy(config: RunConfig) -> dict[str, Any]:
    """Check the policy of a run; return it with its checks, as stored in `run.json`.

    Raises:
        PolicyError: a bucket fails a check, or does not reveal a setting; other stores always fail.
        SetupError: boto3 is not installed.
        StorageError: a bucket cannot be queried.
    """
    checks = examine_policy(config)
    failed = [check for check in checks if not check.is_met]
    if failed:
        told = "; ".join(f"{check.text} ({check.remedy})" for check in failed)
        raise PolicyError(f"--policy eu failed: {told}. Fix it, or pass --policy none if the data may be stored there")
    return {"name": policy_of(config), "checks": [asdict(check) for check in checks]}
