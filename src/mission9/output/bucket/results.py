"""Local copies of results and models in a bucket."""

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
from mission9.output.bucket.shards import download
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
    """A result that lacks files named in its checksums."""


def copy_result(address: Address, *, to_verify: bool = False) -> Path:
    """Copy the current result at a prefix to a folder; with `to_verify`, a fresh copy that includes its shards.

    The copy does not change while this process lives.

    Raises:
        OutputError: there is no result.
        StorageError: it cannot be read, or is incomplete. With `to_verify`, the caller checks completeness.
    """
    for _ in range(_TRIES):
        report, run_id = _pointer(address)
        name = f"{run_id}.{uuid.uuid4().hex}" if to_verify else run_id
        try:
            return kept_copy(mirror_of(address, "results"), name, partial(_copy_result, address, report, to_verify))
        except StorageError as error:
            # Another result replaced and deleted it; the pointer names the new one.
            if not _may_be_replaced(error) or _pointer(address)[1] == run_id:
                raise
    raise OutputError(f"results in {address} are being replaced repeatedly: rerun the command")


def copy_model(address: Address) -> Path:
    """Copy the PCA model at an address to a folder; for a prefix of results, that of the current result.

    The copy does not change while this process lives.

    Raises:
        ModelError: there is no model.
        StorageError: it cannot be read.
    """
    for _ in range(_TRIES):
        place, there = _model_at(address)
        if not there:
            raise ModelError(f"there is no PCA model at {place}: pass the pca_model of an earlier run")
        if sum(found.size for found in there) > _MAX_MODEL_BYTES:
            raise ModelError(f"{place} holds more than a PCA model: pass the pca_model of an earlier run")
        try:
            return kept_copy(mirror_of(_results_of(place), "model"), _digest(there), partial(_copy_model, place, there))
        except StorageError as error:
            if not _may_be_replaced(error) or _digest(_model_at(address)[1]) == _digest(there):
                raise
    raise ModelError(f"models at {address} are being replaced repeatedly: rerun the command")


def _results_of(model: Address) -> Address:
    """The prefix of the results that a model belongs to, where an erasure from them finds its copies."""
    above = model.parent
    return above.parent.parent if above.parent.name == RUNS else above


def _may_be_replaced(error: StorageError) -> bool:
    return is_gone(error) or isinstance(error, _Incomplete)


def last_report(address: Address) -> dict[str, Any]:
    """The report of the current result; empty if there is none."""
    try:
        return _pointer(address)[0]
    except OutputError:
        return {}


def _pointer(address: Address) -> tuple[dict[str, Any], str]:
    """The report of the current result, and the name of its tables."""
    content = get_or_none(address / REPORT, MAX_REPORT_BYTES)
    try:
        report = json.loads(content or b"{}")
        named = _TABLES.fullmatch(report[TABLES_AT])
        if named and FINGERPRINT.fullmatch(report["fingerprint"]):
            return report, named[1]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise NoResultError(
        f"there is no result in {address} ({REPORT} is missing or damaged): create it with mission9 run --output "
        f"{address}"
    )


def _copy_result(address: Address, report: dict[str, Any], to_verify: bool, folder: Path) -> None:
    run_id = report[TABLES_AT].rpartition("/")[2]
    tables = address / RUNS / run_id
    _copy(tables, _objects(tables), folder)
    missing = _missing(folder)
    if missing and (not to_verify or _pointer(address)[1] != run_id):
        raise _Incomplete(f"{tables / missing[0]} is missing from the result: recreate it with mission9 run")
    (folder / STATE).mkdir()
    with suppress(FileNotFoundError):
        (folder / CHECKSUMS).rename(folder / STATE / CHECKSUMS)
    if to_verify:
        shards = Output(folder).shards(report["fingerprint"])
        shards.mkdir(parents=True)
        download(address / STATE / SHARDS / report["fingerprint"], shards, run_id=run_id)


def _missing(folder: Path) -> list[str]:
    """The files that its checksums name and a copy lacks."""
    try:
        names = list(dict(read_json(folder / CHECKSUMS)))
    except (OSError, ValueError, TypeError):
        return [CHECKSUMS]
    return [name for name in names if not (folder / name).is_file()]


def _model_at(address: Address) -> tuple[Address, list[ObjectInfo]]:
    """The prefix of the model that an address names, and its objects."""
    there = _objects(address)
    if not there and address.name == MODEL_FOLDER and get_or_none(address.parent / REPORT, MAX_REPORT_BYTES):
        address = address.parent / RUNS / _pointer(address.parent)[1] / MODEL_FOLDER
        there = _objects(address)
    return address, there


def _copy_model(address: Address, there: list[ObjectInfo], folder: Path) -> None:
    _copy(address, there, folder)
    if _digest(_objects(address)) != _digest(there):  # the copy may mix two models
        raise _Incomplete(f"{address} was replaced while it was read: rerun the command")


def _digest(there: list[ObjectInfo]) -> str:
    """A digest that distinguishes a model from others of the same name."""
    facts = json.dumps([(found.key, found.size, found.etag) for found in there])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _objects(address: Address) -> list[ObjectInfo]:
    # Without the empty placeholder object of the folder itself, made by programs that show buckets as folders.
    return [found for page in list_below(address) for found in page if found.key != address.key]


def _copy(address: Address, there: list[ObjectInfo], folder: Path) -> None:
    """Make a folder of exactly these objects."""

    def copy(found: ObjectInfo) -> None:
        file = file_of(found.key, address, folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        fetch(Address(address.bucket, found.key), file)

    folder.mkdir(parents=True)
    map_concurrent(copy, there)
