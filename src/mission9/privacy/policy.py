"""Where data may lie: before a run reads or writes anything, every bucket and other store of it is looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from mission9.errors import PolicyError
from mission9.s3.address import Address, is_s3
from mission9.urls import is_url, without_file

if TYPE_CHECKING:
    from mission9.config import RunConfig

PolicyName = Literal["eu", "none"]

# The settings that may name something in a bucket.
PLACES = ("input", "output", "weights", "pca_model", "estimate")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at of a bucket: what was found, and what to do where it is not as it should be.

    `bucket` is its name, or the URL of another store.
    """

    bucket: str
    what: str
    is_met: bool
    found: str
    remedy: str = ""

    @property
    def told(self) -> str:
        """What was found, in words."""
        place = self.bucket if is_url(self.bucket) else f"s3://{self.bucket}"
        return f"{place}, {self.what}: {self.found}"


def policy_of(config: RunConfig) -> PolicyName:
    """The policy that a run follows: what it asks for, else `eu` where images or results are in a bucket."""
    return config.policy or ("eu" if is_s3(config.input) or is_s3(config.output) else "none")


def buckets_of(config: RunConfig) -> list[str]:
    """The buckets that a run reads or writes, each once."""
    places = [str(getattr(config, name) or "") for name in PLACES]
    return list(dict.fromkeys(Address.of(place).bucket for place in places if is_s3(place)))


def examine_policy(config: RunConfig) -> list[Check]:
    """What the policy of a run finds of each of its buckets, and of a store that it knows nothing of; else nothing.

    Raises:
        SetupError: boto3 is not installed.
        StorageError: a bucket cannot be asked.
    """
    if policy_of(config) == "none":
        return []
    checks = [_unknown(config.input)] if is_url(without_file(config.input)) else []
    if buckets := buckets_of(config):
        from mission9.s3.policy import check_bucket  # loads boto3

        checks += [check for bucket in buckets for check in check_bucket(bucket)]
    return checks


def _unknown(url: str) -> Check:
    """What is found of a store that has no way of asking where it lies, and who may read it."""
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
