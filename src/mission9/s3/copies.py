"""Results and models of a bucket, brought here to be read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from mission9.errors import ModelError, OutputError, StorageError
from mission9.files import files_in, remove_folder, replace_folder
from mission9.output import CHECKSUMS, MODEL_FOLDER, REPORT, SHARDS, STATE, Output
from mission9.page_file import PAGE
from mission9.s3.address import Address
from mission9.s3.listings import list_below
from mission9.s3.mirror import file_of, mirror_of
from mission9.s3.objects import Listed, at_once, fetch, get_if_there, head, is_gone, put
from mission9.s3.output import MOST_REPORT_BYTES, RUNS, TABLES_AT
from mission9.s3.share_shards import bring
from mission9.untrusted import MIB

_TABLES = re.compile(rf"{RUNS}/([0-9a-f]{{32}})")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")

_MOST_MODEL_BYTES = 512 * MIB  # mean, components and moments, the weights, and the network in int8
_TRIES = 3


def copy_result(address: Address, *, to_verify: bool = False) -> Path:
    """A folder with the result that stands at a prefix; `to_verify` a fresh one, with the shards it was made of.

    Raises:
        OutputError: there is none.
        StorageError: it cannot be read.
    """
    for attempt in range(_TRIES):
        pointer, run_id = _pointer(address)
        folder = mirror_of(address, "results") / run_id
        try:
            if to_verify or not folder.is_dir():
                _copy_tables(address / RUNS / run_id, folder)
            if to_verify:
                _bring_shards(address, pointer["fingerprint"], run_id, Output(folder))
        except StorageError as error:
            # Another result took its place meanwhile, and it was deleted: the pointer says which.
            if not is_gone(error) or attempt == _TRIES - 1:
                raise
        else:
            for other in files_in(folder.parent):
                if other != folder:
                    remove_folder(other)
            return folder
    raise OutputError(f"one result after the other takes its place in {address}: give the command again")


def copy_model(address: Address) -> Path:
    """A folder with the PCA model at an address; below a prefix of results, that of the one that stands.

    Raises:
        ModelError: there is none.
        StorageError: it cannot be read.
    """
    there = _objects(address)
    if not there and address.name == MODEL_FOLDER and get_if_there(address.parent / REPORT, MOST_REPORT_BYTES):
        address = address.parent / RUNS / _pointer(address.parent)[1] / MODEL_FOLDER
        there = _objects(address)
    if not there:
        raise ModelError(f"there is no PCA model at {address}; give .../pca_model of an earlier run")
    if sum(found.size for found in there) > _MOST_MODEL_BYTES:
        raise ModelError(f"{address} holds more than a PCA model: give .../pca_model of an earlier run")
    folder = mirror_of(address, "model")
    _copy(address, there, folder)
    return folder


def put_page(address: Address, folder: Path) -> Address:
    """Put the page that was made of a copy of a result where the result is."""
    page = address / RUNS / folder.name / PAGE
    put(page, folder / PAGE)
    return page


def page_of(address: Address, run_id: str) -> str | None:
    """Where the page of a result is, if it has one."""
    page = address / RUNS / run_id / PAGE
    return str(page) if head(page) else None


def last_report(address: Address) -> dict[str, Any]:
    """The report of the result that stands; empty if there is none."""
    try:
        return _pointer(address)[0]
    except OutputError:
        return {}


def _pointer(address: Address) -> tuple[dict[str, Any], str]:
    """The report of the result that stands, and the name of its tables."""
    content = get_if_there(address / REPORT, MOST_REPORT_BYTES)
    try:
        report = json.loads(content or b"{}")
        named = _TABLES.fullmatch(report[TABLES_AT])
        if named and _FINGERPRINT.fullmatch(report["fingerprint"]):
            return report, named[1]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise OutputError(
        f"there is no result in {address} ({REPORT} is missing or damaged): mission9 run --output {address}"
    )


def _copy_tables(tables: Address, folder: Path) -> None:
    new = folder.with_name(f".{folder.name}")
    _copy(tables, _objects(tables), new)
    (new / STATE).mkdir()
    (new / CHECKSUMS).rename(new / STATE / CHECKSUMS)
    replace_folder(new, folder, trash=folder.with_name(".trash"))
    remove_folder(folder.with_name(".trash"))


def _bring_shards(address: Address, fingerprint: str, run_id: str, copy: Output) -> None:
    copy.shards(fingerprint).mkdir(parents=True)
    bring(address / STATE / SHARDS / fingerprint, copy.shards(fingerprint), run_id=run_id)


def _objects(address: Address) -> list[Listed]:
    return [found for page in list_below(address) for found in page]


def _copy(address: Address, there: list[Listed], folder: Path) -> None:
    """Make a folder of these objects, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)

    def copy(found: Listed) -> None:
        file = file_of(found.key, address, folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        fetch(Address(address.bucket, found.key), file)

    folder.mkdir(parents=True)
    at_once(copy, there)
