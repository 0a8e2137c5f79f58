"""Results and models of a bucket, brought here to be read."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mission9.errors import ModelError, NoResultError, OutputError, StorageError
from mission9.output.bucket.mirror import file_of, mirror_of
from mission9.output.bucket.output import MAX_REPORT_BYTES, RUNS, TABLES_AT
from mission9.output.bucket.shards import bring
from mission9.output.layout import CHECKSUMS, MODEL_FOLDER, REPORT, SHARDS, STATE
from mission9.output.local import FINGERPRINT, Output
from mission9.storage.cache import kept_copy
from mission9.storage.local.untrusted import MIB, read_json
from mission9.storage.s3.address import Address
from mission9.storage.s3.listing import list_below
from mission9.storage.s3.objects import ObjectInfo, fetch, get_or_none, is_gone, map_concurrent

_TABLES = re.compile(rf"{RUNS}/([0-9a-f]{{32}})")

_MAX_MODEL_BYTES = 512 * MIB  # mean, components and moments, the weights, and the network in int8
_TRIES = 3


class _Incomplete(StorageError):
    """Not all of a result is there that its checksums name."""


def copy_result(address: Address, *, to_verify: bool = False) -> Path:
    """A folder with the result that stands at a prefix; `to_verify` a fresh one, with the shards it was made of.

    It stays as it is for as long as this process lives.

    Raises:
        OutputError: there is none.
        StorageError: it cannot be read, or is not whole, which to find out is left to whoever verifies.
    """
    for _ in range(_TRIES):
        report, run_id = _pointer(address)
        name = f"{run_id}.{uuid.uuid4().hex}" if to_verify else run_id
        try:
            return kept_copy(mirror_of(address, "results"), name, partial(_copy_result, address, report, to_verify))
        except StorageError as error:
            # Another result took its place meanwhile, and it was deleted: the pointer says which.
            if not _may_be_replaced(error) or _pointer(address)[1] == run_id:
                raise
    raise OutputError(f"one result after the other takes its place in {address}: give the command again")


def copy_model(address: Address) -> Path:
    """A folder with the PCA model at an address; below a prefix of results, that of the one that stands.

    It stays as it is for as long as this process lives.

    Raises:
        ModelError: there is none.
        StorageError: it cannot be read.
    """
    for _ in range(_TRIES):
        place, there = _model_at(address)
        if not there:
            raise ModelError(f"there is no PCA model at {place}; give .../pca_model of an earlier run")
        if sum(found.size for found in there) > _MAX_MODEL_BYTES:
            raise ModelError(f"{place} holds more than a PCA model: give .../pca_model of an earlier run")
        try:
            return kept_copy(mirror_of(_results_of(place), "model"), _digest(there), partial(_copy_model, place, there))
        except StorageError as error:
            if not _may_be_replaced(error) or _digest(_model_at(address)[1]) == _digest(there):
                raise
    raise ModelError(f"one model after the other takes its place at {address}: give the command again")


def _results_of(model: Address) -> Address:
    """The prefix of the results that a model is of: an erasure from these looks there for copies of it."""
    above = model.parent
    return above.parent.parent if above.parent.name == RUNS else above


def _may_be_replaced(error: StorageError) -> bool:
    return is_gone(error) or isinstance(error, _Incomplete)


def last_report(address: Address) -> dict[str, Any]:
    """The report of the result that stands; empty if there is none."""
    try:
        return _pointer(address)[0]
    except OutputError:
        return {}


def _pointer(address: Address) -> tuple[dict[str, Any], str]:
    """The report of the result that stands, and the name of its tables."""
    content = get_or_none(address / REPORT, MAX_REPORT_BYTES)
    try:
        report = json.loads(content or b"{}")
        named = _TABLES.fullmatch(report[TABLES_AT])
        if named and FINGERPRINT.fullmatch(report["fingerprint"]):
            return report, named[1]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise NoResultError(
        f"there is no result in {address} ({REPORT} is missing or damaged): mission9 run --output {address}"
    )


def _copy_result(address: Address, report: dict[str, Any], to_verify: bool, folder: Path) -> None:
    run_id = report[TABLES_AT].rpartition("/")[2]
    tables = address / RUNS / run_id
    _copy(tables, _objects(tables), folder)
    missing = _missing(folder)
    if missing and (not to_verify or _pointer(address)[1] != run_id):
        raise _Incomplete(f"{tables / missing[0]} is not there, which the result needs: make it again by mission9 run")
    (folder / STATE).mkdir()
    with suppress(FileNotFoundError):
        (folder / CHECKSUMS).rename(folder / STATE / CHECKSUMS)
    if to_verify:
        shards = Output(folder).shards(report["fingerprint"])
        shards.mkdir(parents=True)
        bring(address / STATE / SHARDS / report["fingerprint"], shards, run_id=run_id)


def _missing(folder: Path) -> list[str]:
    """Return what a copy lacks of what its checksums name."""
    try:
        names = list(dict(read_json(folder / CHECKSUMS)))
    except (OSError, ValueError, TypeError):
        return [CHECKSUMS]
    return [name for name in names if not (folder / name).is_file()]


def _model_at(address: Address) -> tuple[Address, list[ObjectInfo]]:
    """Return where the model is that an address names, and its objects."""
    there = _objects(address)
    if not there and address.name == MODEL_FOLDER and get_or_none(address.parent / REPORT, MAX_REPORT_BYTES):
        address = address.parent / RUNS / _pointer(address.parent)[1] / MODEL_FOLDER
        there = _objects(address)
    return address, there


def _copy_model(address: Address, there: list[ObjectInfo], folder: Path) -> None:
    _copy(address, there, folder)
    if _digest(_objects(address)) != _digest(there):  # half of it may be of another
        raise _Incomplete(f"{address} was replaced while it was read: give the command again")


def _digest(there: list[ObjectInfo]) -> str:
    """Return what tells a model from another by the same name."""
    facts = json.dumps([(found.key, found.size, found.etag) for found in there])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _objects(address: Address) -> list[ObjectInfo]:
    # Without the empty object that stands for the folder itself, as programs make it that show buckets as folders.
    return [found for page in list_below(address) for found in page if found.key != address.key]


def _copy(address: Address, there: list[ObjectInfo], folder: Path) -> None:
    """Make a folder of these objects, and nothing else."""

    def copy(found: ObjectInfo) -> None:
        file = file_of(found.key, address, folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        fetch(Address(address.bucket, found.key), file)

    folder.mkdir(parents=True)
    map_concurrent(copy, there)
