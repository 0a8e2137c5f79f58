"""Check what a run is asked for beside its work, before anything is written."""

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


@dataclass(frozen=True)
class RunRequest:
    """The settings of a run, the key of its pseudonyms, what its policy found, and the estimate it is held against."""

    config: RunConfig
    pseudonyms: Pseudonyms | None
    policy: dict[str, Any]
    estimate: dict[str, Any] | None

    @staticmethod
    def of(config: RunConfig) -> RunRequest:
        """Return what the settings ask for.

        Raises:
            ConfigError: a key or the estimate cannot be had.
            PolicyError: a bucket or another store is not as the policy has it.
        """
        policy = enforce_policy(config)  # before anything is read
        estimate = read_estimate(config.estimate) if config.estimate else None
        return RunRequest(config, Pseudonyms.of(config.pseudonymise), policy, estimate)

    def new_report(self, extraction: Extraction, output: Output) -> Report:
        """The report of a run that is about to begin.

        Raises:
            ConfigError: the result that stands is of pseudonyms, and this one would not be.
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

    def hold_against_estimate(self, report: Report) -> None:
        """Have a report tell how far off the estimate was."""
        if self.estimate:
            spent, elsewhere = sum(report.seconds.values()), works_elsewhere(self.config)
            report.estimate = compare(
                self.estimate, seconds=spent, inferred=report.images_inferred, elsewhere=elsewhere
            )
