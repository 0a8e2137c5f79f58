"""Look at every bucket and other store of a run before it reads or writes anything: may the data lie there."""

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


# The settings that may name something in a bucket.
PLACES = ("input", "output", "weights", "pca_model", "estimate")


def policy_of(config: RunConfig) -> PolicyName:
    """The policy that a run follows: what it asks for, else `eu` where images or results are in a bucket."""
    return config.policy or ("eu" if address_of(config.input) or address_of(config.output) else "none")


def buckets_of(config: RunConfig) -> list[str]:
    """The buckets that a run reads or writes, each once."""
    addresses = (address_of(getattr(config, name)) for name in PLACES)
    return list(dict.fromkeys(address.bucket for address in addresses if address))


def examine_policy(config: RunConfig) -> list[Check]:
    """Check each bucket of a run against its policy, and a store that it knows nothing of; nothing without a policy.

    Raises:
        SetupError: boto3 is not installed.
        StorageError: a bucket cannot be asked.
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
    """Return what is found of a store that has no way of asking where it lies, and who may read it."""
    remedy = "bring the images, or a pack of them, into a folder, or a bucket that meets the policy"
    return Check(url, "store", is_met=False, found="nothing tells where it lies and who may read it", remedy=remedy)


def enforce_policy(config: RunConfig) -> dict[str, Any]:
    """The policy of a run with what was looked at, as `run.json` keeps it.

    Raises:
        PolicyError: a bucket is not as it should be, or does not say; no other store does.
        SetupError: boto3 is not installed.
        StorageError: a bucket cannot be asked.
    """
    checks = examine_policy(config)
    failed = [check for check in checks if not check.is_met]
    if failed:
        told = "; ".join(f"{check.told} ({check.remedy})" for check in failed)
        raise PolicyError(f"--policy eu is not met: {told}; or --policy none, where such data may lie there")
    return {"name": policy_of(config), "checks": [asdict(check) for check in checks]}
