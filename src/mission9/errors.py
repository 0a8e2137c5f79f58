"""Errors, grouped by the person who can fix them; each has the exit code of the command line."""

from __future__ import annotations

from typing import Literal, get_args

from mission9.redact import one_line, redact

Reason = Literal[
    "empty",
    "not_an_image",
    "unsupported_format",
    "truncated",
    "corrupt",
    "transparent",
    "too_many_pixels",
    "too_many_bytes",
    "unreadable",
    "vanished",
    "permission_denied",
    "timeout",
    "decoder_crashed",
    "out_of_memory",
    "non_finite_features",
    "unusable_label",
    "unusable_split",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class Mission9Error(Exception):
    """Any error that mission9 raises deliberately; its text states the problem and the remedy, without secrets."""

    exit_code = 1

    def __str__(self) -> str:
        return redact(super().__str__())


class SetupError(Mission9Error):
    """The machine lacks a requirement: Java, a Python package, a GPU, the network."""


class DeviceError(SetupError):
    """A GPU failed, and the process that used it cannot use it any more."""


class UsageError(Mission9Error):
    """The request is not possible as given; mission9 has written nothing."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or its value is invalid."""


class InputError(UsageError):
    """The input folder, or its contents, cannot be used."""


class OutputError(UsageError):
    """The output folder cannot be used."""


class NoResultError(OutputError):
    """There is no result in an output."""


class PolicyError(UsageError):
    """A bucket or another store violates the policy of the run; mission9 has read and written nothing."""


class WeightsError(UsageError):
    """The weights cannot be read, are not MobileNetV2's, or are not safe to load."""


class ModelError(UsageError):
    """A saved PCA model is missing, damaged or of another version."""


class TrackingError(Mission9Error):
    """An MLflow server does not accept a run's data."""


class CloudError(Mission9Error):
    """A cloud service rejected a request, or its work failed."""


class TooManyRejects(Mission9Error):
    """More images were rejected than `max_reject_rate` allows."""

    exit_code = 3


class TaskError(Mission9Error):
    """A task failed repeatedly on the workers; everything committed before remains, for the next run."""


class StorageError(Mission9Error):
    """A disk or file system fails, or is full; everything committed before remains, for the next run."""


class ErasureError(Mission9Error):
    """Some of the data that were to be erased remain."""


class ConservationError(Mission9Error):
    """The counts do not add up: an image was lost or counted twice. Always a defect of mission9."""


class ImageError(Mission9Error):
    """One image cannot be used; it becomes a row in `rejects/`, and the run continues.

    `reason` is one of `REASONS`.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(one_line(message))  # a decoder may quote the file's contents
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[Reason, str]]:
        return type(self), (self.reason, str(self))
