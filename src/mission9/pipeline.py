"""A whole run, stage by stage."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from mission9.config import RunConfig
from mission9.engines import choose_engine
from mission9.errors import ConfigError, InputError, OutputError, TooManyRejects
from mission9.mobilenet_v2 import FEATURES
from mission9.output import FEATURES_FOLDER, MODEL_FOLDER, REJECTS_FOLDER, Output, open_output, scores_folder
from mission9.pca import PCAModel, check_components
from mission9.runner import Runner
from mission9.session import spark_runner
from mission9.stages.collect_shards import Collected, collect_shards, pending, sweep
from mission9.stages.extract_shard import ExtractShards
from mission9.stages.fit_pca import fit_pca
from mission9.stages.infer_features import Extraction
from mission9.stages.list_images import Found, check_folder, fitting_split, list_images
from mission9.stages.plan_shards import Shard, plan_shards
from mission9.stages.project import project
from mission9.stages.report import Report, SplitCounts
from mission9.stages.save_results import save_results
from mission9.weights import SAVED_FILE, load_weights

logger = logging.getLogger(__name__)


def run(config: RunConfig, runner: Runner | None = None) -> Report:
    """Turn a folder of images into features, a PCA model and tables of scores.

    What an earlier run of the same images and settings has committed is not computed again. Without `runner`, the
    active Spark session is used, or one is made and ended.

    Raises:
        UsageError: the request cannot be carried out; nothing was written.
        SetupError: the machine lacks something.
        TooManyRejects: more images were rejected than `config.max_reject_rate` allows.
    """
    check_folder(config.input)
    extraction = make_extraction(config)
    report = _new_report(config, extraction)
    with ExitStack() as stack:
        output = stack.enter_context(open_output(config.output, overwrite=config.overwrite))
        with report.timed("list"):
            shards = _list(config, output, report)
        with report.timed("start"):
            runner = runner or stack.enter_context(spark_runner(config))
        with report.timed("extract"):
            collected = _extract(runner, extraction, output, shards, report)
        _check_rejects(output, report)
        with report.timed("fit"):
            model = fit_pca(runner, collected.features.get(report.fitted_on, []), config.components)
        with report.timed("project"):
            for split, files in collected.features.items():
                _project(runner, model, files, output, split)
        with report.timed("save_model"):
            _save_model(model, extraction, output, report)
        output.publish(report.to_json())
    return report


def make_extraction(config: RunConfig) -> Extraction:
    """Settle engine and weights on this side, so that workers neither choose nor download."""
    engine = choose_engine(
        engine=config.engine, device=config.device, precision=config.precision, batch_size=config.batch_size
    )
    return Extraction(
        engine=engine,
        weights=load_weights(config.weights),
        preprocess=config.preprocess,
        max_pixels=config.max_pixels,
        max_bytes=config.max_bytes,
    )


def _new_report(config: RunConfig, extraction: Extraction) -> Report:
    return Report(
        config=config.model_dump(mode="json"),
        fingerprint=extraction.fingerprint,
        weights={"name": extraction.weights.name, "sha256": extraction.weights.sha256},
        engine=asdict(extraction.engine),
    )


def _list(config: RunConfig, output: Output, report: Report) -> list[Shard]:
    found = Found()
    root, results = os.path.realpath(config.input), os.path.realpath(output.root)
    if root == results:
        raise OutputError(f"the results would lie among the images in {config.input}: give another --output")
    rows = list_images(root, found, all_files=config.all_files, leave_out=results)
    shards = plan_shards(rows, output.plan)
    if not shards:
        raise InputError(f"there are no images in {config.input} ({found.total} other files)")
    report.found, report.skipped, report.shards = found.total, dict(found.skipped), len(shards)
    report.splits = {split: SplitCounts(listed=count) for split, count in sorted(found.listed.items())}
    report.fitted_on = fitting_split(found.listed)
    check_components(config.components, found.listed[report.fitted_on], FEATURES)
    logger.info("list: %s images in %s", f"{report.listed:,}", config.input)
    return shards


def _extract(runner: Runner, extraction: Extraction, output: Output, shards: list[Shard], report: Report) -> Collected:
    folder = output.shards(extraction.fingerprint)
    if report.config["overwrite"]:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    todo = pending(shards, folder)
    report.images_inferred = sum(shard.images for shard in todo)
    done_before = report.listed - report.images_inferred
    logger.info("extract: %s images to do, %s done before", f"{report.images_inferred:,}", f"{done_before:,}")
    root = os.path.realpath(report.config["input"])
    task = ExtractShards(root=root, plan=output.plan, shards=todo, extraction=extraction, folder=folder)
    runner.map(task, len(todo))
    collected = collect_shards(
        shards, folder, features=output.work / FEATURES_FOLDER, rejects=output.work / REJECTS_FOLDER
    )
    sweep(shards, folder)
    for split, counts in report.splits.items():
        counts.featured = collected.featured[split]
        counts.reasons = dict(collected.rejected.get(split, {}))
        counts.rejected = sum(counts.reasons.values())
    report.check_conserved()
    return collected


def _check_rejects(output: Output, report: Report) -> None:
    """Fail where too many were rejected, by the limit or by what is left to fit on."""
    limit = report.config["max_reject_rate"]
    too_many = report.rejected == report.listed or report.rejected > limit * report.listed
    consequence = f"at most {limit:.1%} may be (--max-reject-rate)"
    try:
        check_components(report.config["components"], report.splits[report.fitted_on].featured, FEATURES)
    except ConfigError as error:
        consequence = consequence if too_many else str(error)
        too_many = True
    if too_many:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.reasons.most_common())
        raise TooManyRejects(
            f"{report.rejected:,} of {report.listed:,} images were rejected ({reasons}); {consequence}. "
            f"Each is a row of {output.keep_rejects()}"
        )


def _project(runner: Runner, model: PCAModel, files: list[Path], output: Output, split: str) -> None:
    name, chunks = scores_folder(split), output.state / "chunks"
    shutil.rmtree(chunks, ignore_errors=True)
    scores = project(runner, model, files, chunks)
    save_results(scores, output.work / name, output.work / f"{name}_csv", components=model.n_components_)
    shutil.rmtree(chunks)


def _save_model(model: PCAModel, extraction: Extraction, output: Output, report: Report) -> None:
    folder = output.work / MODEL_FOLDER
    facts = {"fingerprint": report.fingerprint, "weights": report.weights, "engine": report.engine}
    model.save(folder, facts | {"preprocess": extraction.preprocess})
    (folder / SAVED_FILE).write_bytes(extraction.weights.data)
    report.n_components = model.n_components_
    report.explained_variance_ratio = model.explained_variance_ratio_.tolist()
    logger.info("fit: %s components keep %.1f %% of the variance", model.n_components_, 100 * report.variance_kept)
