"""An output, and images to erase -> the output without them, verified, with a receipt."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow.compute as pc

from mission9.crypto.parquet import encrypted_by
from mission9.crypto.pseudonyms import check_key
from mission9.erasure.leftovers import files_to_search
from mission9.erasure.rebuild import CurrentResult, RebuildResult, remake
from mission9.erasure.receipt import Receipt, keep
from mission9.erasure.rewrite import rewrite, rows_of
from mission9.erasure.search import Search, holds_erased_paths
from mission9.erasure.selection import ErasureRequest, chosen
from mission9.erasure.source_files import deletable_source
from mission9.errors import ErasureError, OutputError
from mission9.output.audit_log import MODEL_SHA256, noted
from mission9.output.layout import done_file, plan_file
from mission9.output.local import Output
from mission9.output.open import existing_output
from mission9.output.place import HiddenData, OutputPlace
from mission9.output.run_report import report_of
from mission9.output.tables import row_groups
from mission9.output.tombstones import Pending, Tombstones
from mission9.sources.deletion import Deleted
from mission9.storage.local.errors import translate_errors
from mission9.storage.local.files import sync_file_system
from mission9.storage.local.scratch import clear_scratch

logger = logging.getLogger(__name__)


def erase(place: str, request: ErasureRequest) -> Receipt | None:
    """Erase images from an output, and on request from the input; None if there is nothing to do.

    Raises:
        OutputError: there is no output, one of its plans is damaged, or another run is writing to it.
        InputError: an id names no image, or one that cannot be deleted.
        ErasureError: erased data is left.
        StorageError: a disk or bucket fails; rerun the same command to resume.
    """
    there = existing_output(place)
    with translate_errors(place), encrypted_by(there.encryption_key()), there.open(overwrite=False) as output:
        for fingerprint in output.fingerprints():
            output.download_shards(fingerprint)
        return _Erasure(output, there, request).carry_out()


class _Erasure:
    """One erasure; `names` are the paths of its images, `public` their names in the tables."""

    def __init__(self, output: Output, place: OutputPlace, request: ErasureRequest) -> None:
        self._output, self._place, self._request = output, place, request
        self._state = output.state_files
        self._erased = Tombstones.of(self._state)
        self._config: dict[str, Any] = {}
        if found := output.last_report():
            report = report_of(found, place.name)
            self._config = report.config
            check_key(request.pseudonyms, report.pseudonyms, place.name)
        of_run = str(self._config.get("input", ""))
        self._source = deletable_source(request.input, of_run) if request.with_source else None
        self._names, self._undated = chosen(request, output, self._erased, self._source)
        self._public = {request.public_name(name) for name in self._names} | {name for name in request.ids if name}

    def carry_out(self) -> Receipt | None:
        """Run all steps in order, resuming an erasure that was killed."""
        new = [name for name in self._names if not self._erased.has(name)]
        sources = [name for name in self._names if self._source and self._source.has(name)]
        was_pending = self._erased.is_pending
        if not (new or sources or was_pending):
            return None
        standing = self._note(new)
        self._delete(sources)
        self._rewrite()
        remade = self._remake(standing, is_touched=was_pending or self._erased.pending.rows_of_shards > 0)
        clear_scratch()  # of killed processes
        self._place.forget_copies()
        hidden = self._place.delete_hidden()
        searched = self._prove_absence()
        return self._keep_receipt(remade, hidden, searched, missed=len(self._names) - len(sources))

    def _note(self, new: Collection[str]) -> CurrentResult | None:
        """Record the images, so that later runs exclude them and a rerun resumes; return the current result."""
        erased, pending = self._erased, self._erased.pending
        hashes = erased.hashes_of({*new, *map(self._request.public_name, new)})
        shards = map(self._output.shards, self._output.fingerprints())
        pending.digest_before = pending.digest_before or self._digest()
        pending.erased += len(new)
        pending.rows_of_shards += sum(rows_of(folder, Tombstones(erased.key, hashes)) for folder in shards)
        pending.images |= erased.hashes_of(self._names)
        erased.hashes |= hashes
        standing = self._standing()
        erased.retired |= self._models_that_may_have_seen(standing)
        erased.save(self._state)
        return standing

    def _standing(self) -> CurrentResult | None:
        try:
            return CurrentResult.of(self._place.result(), self._erased.holds)
        except OutputError:
            return None

    def _models_that_may_have_seen(self, standing: CurrentResult | None) -> set[str]:
        """The PCA models of all results so far, except a current one fitted on none of the images."""
        models = noted(self._state, MODEL_SHA256)
        if standing is not None and (model := standing.model()) is not None:
            return models | {model.sha256} if standing.model_may_have_seen else models - {model.sha256}
        return models

    def _delete(self, sources: Collection[str]) -> None:
        if self._source and sources:
            logger.info("deleting %s images in %s", f"{len(sources):,}", self._source.root)
            self._erased.pending.source.update(asdict(self._source.delete(sources)))
            self._erased.save(self._state)

    def _rewrite(self) -> None:
        for fingerprint in self._output.fingerprints():
            rewrite(self._output.shards(fingerprint), self._erased)
            self._output.upload_shards(fingerprint)
        self._output.forget_rejects()

    def _remake(self, standing: CurrentResult | None, *, is_touched: bool) -> RebuildResult:
        output = self._output
        if standing is None:
            output.unpublish()  # the rejects of a failed run
            return RebuildResult(0, "none: there was no result")
        # A killed erasure may have left the files that it replaced, and tables may have been deleted. The images on
        # which a supplied model was fitted are unknown.
        if standing.erased == 0 and not is_touched and not standing.is_model_given:
            return RebuildResult(standing.report.listed, "unchanged: none of its images is erased")
        remade = remake(output, standing, self._request.pseudonyms)
        if output.last_report() and not (self._config.get("no_report") or self._config.get("encrypt_key")):
            self._write_page()
        return remade

    def _write_page(self) -> None:
        from mission9.html_report import write_report_if_possible  # not always needed

        write_report_if_possible(self._output.root, self._request.input)
        self._output.publish_page()

    def _prove_absence(self) -> int:
        """Search all remaining files for the erased names; return how many files were searched.

        Raises:
            ErasureError: a name is left.
        """
        search, count, found = Search([*self._names, *self._public], self._kept_with), 0, []
        for told, file in files_to_search(self._output, self._place):
            count += 1
            if search.is_in(file) or holds_erased_paths(file, self._erased.holds):
                found.append(told)
        if self._place.has_hidden():
            found.append("old versions of objects, or unfinished uploads")
        if found:
            raise ErasureError(
                f"erased data is left in {self._place.name}: {', '.join(found[:5])}; find the process that writes "
                "there, then rerun the same command"
            )
        return count

    def _kept_with(self, name: str) -> Iterator[str]:
        """The paths of kept images that contain a name."""
        for fingerprint in self._output.fingerprints():
            for plan in (done_file(self._output.shards(fingerprint)), plan_file(self._output.shards(fingerprint))):
                for group in row_groups(plan, ["path"]) if plan.exists() else ():
                    yield from group["path"].filter(pc.match_substring(group["path"], name)).to_pylist()

    def _keep_receipt(self, remade: RebuildResult, hidden: HiddenData, searched: int, *, missed: int) -> Receipt:
        """Write a receipt, and a record in the audit log, of the completed erasure."""
        pending = self._erased.pending
        sync_file_system(self._output.root)  # a receipt must not precede the deletions
        receipt = Receipt(
            action=self._request.why,
            with_source=self._request.with_source,
            images=sorted(pending.images),
            erased=pending.erased,
            rows_of_shards=pending.rows_of_shards,
            result=asdict(remade),
            source=asdict(Deleted()) | pending.source,
            old_versions=hidden.versions,
            unfinished_uploads=hidden.uploads,
            searched_files=searched,
            searched_by_hash_alone=self._unnamed,
            run_id=str(self._output.last_report().get("run_id", "")),
            digest_before=pending.digest_before,
            digest_after=self._digest(),
            not_reached=self._not_reached(missed),
        )
        self._erased.audit = keep(receipt, self._state)
        self._erased.pending = Pending()
        self._erased.save(self._state)
        return receipt

    @property
    def _unnamed(self) -> int:
        """The number of images of an interrupted erasure that are not in this request."""
        return len(self._erased.pending.images - self._erased.hashes_of(self._names))

    def _not_reached(self, missed: int) -> list[str]:
        """Describe the data that an erasure cannot reach, which a person must erase."""
        left = ["copies and backups that others made", *self._place.copies]
        left.append("data sent to MLflow, if any: delete that run there")  # mission9 log leaves no trace
        left.append("results that others made with a PCA model from here (--pca-model): erase from those too")
        if not self._request.with_source:
            left.append("the images themselves (--source deletes them)")
        elif unnamed := self._unnamed:
            left.append(f"{unnamed:,} images of an interrupted erasure, unless it was to delete them")
        if self._undated:
            left.append(f"{self._undated:,} images with an unknown modification time: erase them by their ids")
        if missed and self._source:
            left.append(f"{missed:,} images not found in {self._source.root}: deleted before, or stored elsewhere")
        return left

    def _digest(self) -> str:
        """One SHA-256 of the published tables, from their checksums."""
        told = json.dumps(self._output.checksums(), sort_keys=True).encode()
        return hashlib.sha256(told + str(self._output.last_report().get("run_id", "")).encode()).hexdigest()
