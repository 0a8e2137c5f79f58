"""Check the policy, the keys and the saved estimate of a run before it writes anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mission9.config import RunConfig
from mission9.crypto.pseudonyms import Pseudonyms, check_key
from mission9.estimate.saved import compare, read_estimate
from mission9.models.extraction import Extraction
from mission9.output.local import Output
from mission9.output.run_report import Report
from mission9.privacy.policy import enforce_policy
from mission9.runners.factory import works_elsewhere
from mission9.sources import find_root
from mission9.sources.base import Root


@dataclass(frozen=True)
class RunRequest:
    """The settings of a run, and what they name: its images, key of pseudonyms, findings of the policy, estimate."""

    config: RunConfig
    root: Root
    pseudonyms: Pseudonyms | None
    policy: dict[str, Any]
    estimate: dict[str, Any] | None

    @staticmethod
    def of(config: RunConfig) -> RunRequest:
        """The request that the settings describe.

        Raises:
            InputError: there is no input.
            ConfigError: a key or the estimate cannot be read.
            PolicyError: a bucket or another store violates the policy.
        """
        policy = enforce_policy(config)  # before anything is read
        estimate = read_estimate(config.estimate) if config.estimate else None
        pseudonyms = Pseudonyms.of(config.pseudonymise)
        return RunRequest(config, find_root(config.input), pseudonyms, policy, estimate)

    def new_report(self, extraction: Extraction, output: Output) -> Report:
        """The initial report of a run.

        Raises:
            ConfigError: the current result has pseudonyms, and the new one would not.
        """
        if self.pseudonyms is None:
            check_key(None, str(output.last_report().get("pseudonyms", "")), self.config.output)
        return Report(
            config=self.config.model_dump(mode="json"),
            fingerprint=extraction.fingerprint,
            weights={"name": extraction.weights.name, "sha256": extraction.weights.sha256},
            engine=asdict(extraction.engine),
            policy=self.policy,
            encrypted=self.config.encrypt_key is not None,
            pseudonyms=self.pseudonyms.key_id if self.pseudonyms else "",
        )

    def compare_with_estimate(self, report: Report) -> None:
        """Record in a report the estimate and the actual duration, if the run has an estimate."""
        if self.estimate:
            spent, elsewhere = sum(report.seconds.values()), works_elsewhere(self.config)
            report.estimate = compare(
                self.estimate, seconds=spent, inferred=report.images_inferred, elsewhere=elsewhere
            )
