"""Where data may lie: before a run reads or writes anything, every bucket of it is looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from mission9.errors import PolicyError
from mission9.s3.address import Address, is_s3

if TYPE_CHECKING:
    from mission9.config import RunConfig

PolicyName = Literal["eu", "none"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at of a bucket: what was found, and what to do where it is not as it should be."""

    bucket: str
    what: str
    is_met: bool
    found: str
    remedy: str = ""


def policy_of(config: RunConfig) -> PolicyName:
    """The policy that a run follows: what it asks for, else `eu` where images or results are in a bucket."""
    return config.policy or ("eu" if is_s3(config.input) or is_s3(config.output) else "none")


def examine_policy(config: RunConfig) -> list[Check]:
    """What the policy of a run finds of each of its buckets; nothing where it asks for nothing.

    Raises:
        SetupError: boto3 is not installed.
    """
    if policy_of(config) == "none":
        return []
    places = [place for place in (config.input, config.output, config.weights, config.pca_model) if is_s3(place or "")]
    if not places:
        return []
    from mission9.s3.policy import check_bucket  # loads boto3

    buckets = dict.fromkeys(Address.of(str(place)).bucket for place in places)
    return [check for bucket in buckets for check in check_bucket(bucket)]


def enforce_policy(config: RunConfig) -> dict[str, Any]:
    """The policy of a run with what was looked at, as `run.json` keeps it.

    Raises:
        PolicyError: a bucket is not as it should be, or does not say.
        SetupError: boto3 is not installed.
    """
    checks = examine_policy(config)
    failed = [check for check in checks if not check.is_met]
    if failed:
        told = "; ".join(f"s3://{check.bucket}, {check.what}: {check.found} ({check.remedy})" for check in failed)
        raise PolicyError(f"--policy eu is not met: {told}; or --policy none, where such data may lie there")
    return {"name": policy_of(config), "checks": [asdict(check) for check in checks]}
