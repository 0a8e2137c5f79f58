"""A prefix of a bucket as a place of results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mission9.output.bucket.mirror import mirror_of
from mission9.output.bucket.output import RUNS, open_bucket_output
from mission9.output.bucket.results import copy_model, copy_result, last_report
from mission9.output.layout import PAGE, REPORT, STATE
from mission9.output.local import Output
from mission9.output.place import HiddenData
from mission9.storage.file_store import BucketStore, FileStore
from mission9.storage.local.files import remove_folder
from mission9.storage.local.scratch import scratch_folder
from mission9.storage.s3.address import Address
from mission9.storage.s3.listing import list_below, list_level
from mission9.storage.s3.objects import fetch, head, put
from mission9.storage.s3.versions import abort, delete_versions, old_versions_below, unfinished_below


@dataclass(frozen=True)
class BucketPlace:
    """A prefix of a bucket that holds results."""

    address: Address
    copies: tuple[str, ...] = ("copies in the caches of other machines and users",)

    @property
    def name(self) -> str:
        return str(self.address)

    def open(self, *, overwrite: bool) -> AbstractContextManager[Output]:
        return open_bucket_output(self.address, overwrite=overwrite)

    def exists(self) -> bool:
        objects, prefixes = list_level(self.address)
        report = (self.address / REPORT).key
        return any(found.key == report for found in objects) or self.address / STATE in prefixes

    def result(self, *, to_verify: bool = False) -> Path:
        return copy_result(self.address, to_verify=to_verify)

    def model(self) -> Path:
        return copy_model(self.address)

    def last_report(self) -> dict[str, Any]:
        return last_report(self.address)

    def state_files(self) -> FileStore:
        return BucketStore(self.address / STATE)

    def encryption_key(self) -> None:
        """None: the bucket encrypts its objects, mission9 does not."""

    def put_page(self, folder: Path) -> str:
        page = self.address / RUNS / folder.name.partition(".")[0] / PAGE
        put(page, folder / PAGE)
        return str(page)

    def page(self, run_id: str) -> str | None:
        page = self.address / RUNS / run_id / PAGE
        return str(page) if head(page) else None

    def forget_copies(self) -> None:
        for what in ("results", "model"):
            remove_folder(mirror_of(self.address, what))

    def delete_hidden(self) -> HiddenData:
        versions, uploads = old_versions_below(self.address), unfinished_below(self.address)
        delete_versions(self.address.bucket, versions)
        abort(self.address.bucket, uploads)
        return HiddenData(len(versions), len(uploads))

    def has_hidden(self) -> bool:
        # Directly in the state lie the lock, which adds a version at each renewal, and files that name no image.
        state = f"{(self.address / STATE).key}/"
        keys = [key for key, *_ in old_versions_below(self.address)]
        versions = [key for key in keys if not key.startswith(state) or "/" in key.removeprefix(state)]
        return bool(versions or unfinished_below(self.address))

    def objects(self) -> Iterator[tuple[str, Path]]:
        with scratch_folder() as scratch:
            for page in list_below(self.address):
                for found in page:
                    file = scratch / f"object{Path(found.key).suffix}"
                    address = Address(self.address.bucket, found.key)
                    fetch(address, file)
                    yield str(address), file
