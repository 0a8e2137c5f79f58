"""The current result, and the rows left of it -> the result without the erased images.

Moments are additive: those of the erased rows are subtracted from those stored with the model, which is refitted. All
tables are made from the rewritten shards and published atomically, as in a run.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mission9 import pca
from mission9.crypto.pseudonyms import Pseudonyms
from mission9.erasure.rewrite import raise_if_of_the_system
from mission9.errors import ConfigError, ConservationError, InputError, ModelError, OutputError
from mission9.output.audit_log import MODEL_SHA256, append
from mission9.output.layout import FEATURES_FOLDER, MODEL_FOLDER, REJECTS_FOLDER, done_file
from mission9.output.local import Output
from mission9.output.run_report import Report, SplitCounts, report_of
from mission9.output.shards import Shard
from mission9.output.tables import DAMAGE, row_groups
from mission9.output.tombstones import ERASED
from mission9.pca import Moments, PCAModel
from mission9.runners.base import InProcessRunner
from mission9.schema import FEATURES, vectors
from mission9.sources.listing import fitting_split
from mission9.stages.collect_shards import Collected, collect_shards
from mission9.stages.fit_pca import fit_pca
from mission9.stages.make_scores import make_scores
from mission9.storage.local.files import files_in, make_folder, read_whole, write_atomic

logger = logging.getLogger(__name__)


# A Boolean array, True for the paths in the published tables whose images are erased.
Holds = Callable[[pa.ChunkedArray], pa.Array]


@dataclass(frozen=True)
class CurrentResult:
    """The current result: its folder (for a bucket, a copy), its report, and the rows to erase from it."""

    root: Path
    report: Report
    erased: int
    moments: Moments | None

    @staticmethod
    def of(root: Path, is_erased: Holds) -> CurrentResult | None:
        """Read the current result; None if there is none. `moments` are of the erased rows; None for damaged tables."""
        try:
            report = report_of(Output(root).last_report(), root)
        except OutputError:
            return None
        try:
            rejected = sum(len(rows) for rows in _erased_rows(root / REJECTS_FOLDER, ["path"], is_erased))
            count, moments = 0, Moments.empty(FEATURES)
            for rows in _erased_rows(root / FEATURES_FOLDER, ["path", "split", "features"], is_erased):
                count += len(rows)
                fitted = rows.filter(pc.equal(rows["split"], report.fitted_on))
                if len(fitted):
                    moments = moments.merge(pca.moments_of([vectors(fitted["features"])], FEATURES))
        except DAMAGE as error:
            raise_if_of_the_system(error)
            logger.warning("the tables in %s are damaged, so the model is refitted on all images: %s", root, error)
            return CurrentResult(root, report, -1, None)
        return CurrentResult(root, report, rejected + count, moments)

    @property
    def is_model_given(self) -> bool:
        """True if the run used an existing model (`--pca-model`), fitted on unknown images."""
        return not self.report.fitted_on

    @property
    def model_may_have_seen(self) -> bool:
        """True if the model may have been fitted on an erased image."""
        return self.is_model_given or self.moments is None or self.moments.count > 0

    def model(self) -> PCAModel | None:
        """The PCA model; None if it is missing or damaged."""
        try:
            return PCAModel.load(self.root / MODEL_FOLDER, features=FEATURES)
        except ModelError as error:
            logger.warning("%s", error)
            return None


@dataclass(frozen=True)
class RebuildResult:
    """The result after an erasure: its number of images, and the origin of its model."""

    images: int
    model: str


def remake(output: Output, standing: CurrentResult, pseudonyms: Pseudonyms | None) -> RebuildResult:
    """Publish the result without erased images; if too few are left for one, unpublish the old result.

    The last finished plan, and the shards that it names, must hold no erased image.
    """
    report = standing.report
    try:
        collected, parts = _collect(output, report, pseudonyms)
        model, how = _model(standing, collected)
    except (ConservationError, ConfigError, InputError, *DAMAGE) as error:
        raise_if_of_the_system(error)
        logger.warning(
            "the result is removed, since too few images are left for another: %s; %s", error, _next(standing)
        )
        output.unpublish()
        return RebuildResult(0, "none: the result is removed")
    _update(report, parts, collected, model)
    config = report.config
    make_scores(InProcessRunner(), model, collected, output, plain_csv=bool(config.get("plain_csv")))
    _save_model(model, report, standing.root / MODEL_FOLDER, output.work / MODEL_FOLDER)
    report.audit = append(output.state_files, "erase", report.audited() | {"model": how, MODEL_SHA256: model.sha256})
    output.publish(report.to_json(), with_features=pseudonyms is not None)
    return RebuildResult(report.listed, how)


def _next(standing: CurrentResult) -> str:
    """The advice on making a new result."""
    if standing.is_model_given:
        return "run again with --pca-model of a result from which the images were erased too"
    return "run again"


def _erased_rows(folder: Path, columns: list[str], is_erased: Holds) -> Iterator[pa.Table]:
    for file in sorted(files_in(folder)) if folder.is_dir() else ():
        paths = row_groups(file, ["path"])
        masks = [is_erased(group["path"]) for group in paths]
        if any(mask.true_count for mask in masks):
            for mask, group in zip(masks, row_groups(file, columns), strict=True):
                yield group.filter(mask)


def _collect(output: Output, report: Report, pseudonyms: Pseudonyms | None) -> tuple[Collected, list[Shard]]:
    folder = output.shards(report.fingerprint)
    if not done_file(folder).exists():
        raise ConservationError("there are no images left")
    parts = [
        Shard(number, rows["part"][0].as_py(), rows["split"][0].as_py(), len(rows))
        for number, rows in enumerate(row_groups(done_file(folder)))
    ]
    features, rejects = output.work / FEATURES_FOLDER, output.work / REJECTS_FOLDER
    return collect_shards(parts, folder, features=features, rejects=rejects, pseudonyms=pseudonyms), parts


def _model(standing: CurrentResult, collected: Collected) -> tuple[PCAModel, str]:
    """The model without the erased images, and a description of its origin.

    Raises:
        ConfigError, InputError: too few images are left.
    """
    report = standing.report
    split = report.fitted_on or fitting_split(collected.featured)
    left = collected.featured[split]
    # With an existing model, no number of components was configured.
    asked: int | float = report.n_components if report.config.get("pca_model") else report.config["components"]
    components = max(1, min(asked, left, FEATURES)) if isinstance(asked, int) else asked
    pca.check_components(components, left, FEATURES)
    if standing.is_model_given:
        fitted = fit_pca(InProcessRunner(), collected.features[split], components)
        return fitted, f"the model passed to --pca-model is replaced by one fitted on the rest of {split}"
    old = standing.model()
    if old is not None and standing.moments is not None:
        moments = old.moments.subtract(standing.moments)
        if moments.count == left:
            return pca.fit(moments, components), "moments of the erased images subtracted, refitted"
    return fit_pca(InProcessRunner(), collected.features[split], components), "refitted"


def _update(report: Report, parts: list[Shard], collected: Collected, model: PCAModel) -> None:
    """Update a report to the remaining images."""
    before, listed = report.listed, Counter[str]()
    for part in parts:
        listed[part.split] += part.images
    report.splits = {split: SplitCounts(listed=count) for split, count in sorted(listed.items())}
    for split, counts in report.splits.items():
        counts.featured = collected.featured[split]
        counts.reasons = dict(collected.rejected.get(split, {}))
        counts.rejected = sum(counts.reasons.values())
    report.check_conserved()
    report.skipped = dict(Counter(report.skipped) + Counter({ERASED: before - report.listed}))
    report.run_id, report.images_inferred, report.shards = uuid.uuid4().hex, 0, 0
    report.fitted_on = report.fitted_on or fitting_split(collected.featured)
    report.n_components = model.n_components_
    report.explained_variance_ratio = model.explained_variance_ratio_.tolist()


def _save_model(model: PCAModel, report: Report, old: Path, new: Path) -> None:
    """Write the model with its companion files: the weights, and the network in int8."""
    make_folder(new)
    for file in files_in(old) if old.is_dir() else ():
        if not file.name.startswith("pca."):
            write_atomic(new / file.name, read_whole(file))
    facts = {"fingerprint": report.fingerprint, "weights": report.weights, "engine": report.engine}
    model.save(new, facts | {name: report.config[name] for name in ("preprocess", "decode")})
