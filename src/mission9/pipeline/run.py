"""A whole run, stage by stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console

from mission9.config import RunConfig
from mission9.crypto.parquet import encrypted_by
from mission9.crypto.pseudonyms import Pseudonyms
from mission9.errors import ConfigError, TooManyRejects
from mission9.models.extraction import Extraction
from mission9.models.weights import SAVED_FILE
from mission9.output.audit_log import MODEL_SHA256, append
from mission9.output.layout import FEATURES_FOLDER, MODEL_FOLDER, REJECTS_FOLDER
from mission9.output.local import Output
from mission9.output.open import output_at
from mission9.output.run_report import Report
from mission9.output.shards import Shard, read_marker
from mission9.pca import PCAModel, check_components
from mission9.pipeline.plan import FEW_IMAGES, make_plan, name_of
from mission9.pipeline.preflight import RunRequest
from mission9.pipeline.progress import Display, ShardWatch
from mission9.pipeline.setup import set_up
from mission9.redact import redact_values
from mission9.runners.background import Runners
from mission9.runners.base import Runner
from mission9.runners.factory import works_elsewhere
from mission9.schema import FEATURES
from mission9.sources.base import Root
from mission9.stages.collect_shards import Collected, collect_shards
from mission9.stages.compact_shards import CompactParts
from mission9.stages.extract_shard import ExtractShards
from mission9.stages.fit_pca import fit_pca
from mission9.stages.infer_features import add
from mission9.stages.make_scores import make_scores
from mission9.stages.measure_fidelity import fidelity_in, measure_fidelity
from mission9.stages.plan_shards import Plan
from mission9.storage.local.errors import translate_errors
from mission9.storage.local.files import write_atomic

logger = logging.getLogger(__name__)

# This process gathers, fits and projects tables of up to this many rows in a second or two.
SMALL_TABLE = 10_000


def run(config: RunConfig, runner: Runner | None = None, *, console: Console | None = None) -> Report:
    """Turn a folder of images into features, a PCA model and tables of scores.

    The run reuses the shards that an earlier run of the same images and settings has committed. Without `runner`, the
    settings select one, and the run ends every process that it started for it. If `console` is a terminal, a bar shows
    the progress; otherwise lines of the log do.

    Raises:
        UsageError: the request cannot be carried out; nothing was written.
        SetupError: the machine lacks a requirement.
        StorageError: a disk is full, or a file system fails; earlier commits remain.
        TaskError: a task failed after all its retries; earlier commits remain.
        TooManyRejects: more images were rejected than `config.max_reject_rate` allows.
    """
    with translate_errors(config.output, config.input):
        request, display = RunRequest.of(config), Display(console)
    with (
        translate_errors(config.output, config.input),
        encrypted_by(config.encrypt_key),
        output_at(config.output).open(overwrite=config.overwrite) as output,
        Runners(config, runner) as runners,
    ):
        extraction, model = set_up(request, output, runners)
        report = request.new_report(extraction, output)
        stage = partial(_stage, display, report)
        with stage("list"):
            plan = make_plan(request, extraction, output, report)
        with stage("start"):
            runners.start(is_needed=_needs_runner(config, plan, report))
        watch = ShardWatch(output.shards(extraction.fingerprint), plan.shards)
        with stage("extract"), display.counting(plan.images_to_do, watch.look):
            _extract(runners.now, request.root, extraction, output, plan, report)
        runners.switch_to_local(is_little=report.listed <= SMALL_TABLE, is_all_here=output.is_mirror)
        with stage("compact"):
            collected = _compact(runners.now, output, plan, report, request.pseudonyms)
        _check_rejects(output, report)
        with stage("fit"):
            model = model or fit_pca(runners.now, collected.features.get(report.fitted_on, []), config.components)
        with stage("project"):
            make_scores(runners.now, model, collected, output, plain_csv=config.plain_csv)
        if not extraction.is_exact:
            with stage("fidelity"):
                _measure_fidelity(request.root, extraction, collected, output, plan, report)
        with stage("save_model"):
            _save_model(model, extraction, output, report)
        _publish(request, output, plan, report, model)
        if not (config.no_report or config.encrypt_key):  # while the runner shuts down
            _write_page(display, output, config.input)
    if config.mlflow:
        from mission9.tracking.subprocess_logger import log_apart  # not always needed

        log_apart(str(output.root), config.mlflow, config.output)
    return report


def _publish(request: RunRequest, output: Output, plan: Plan, report: Report, model: PCAModel) -> None:
    request.compare_with_estimate(report)
    report.audit = append(output.state_files, "run", report.audited() | {MODEL_SHA256: model.sha256})
    output.publish(report.to_json(), plan=plan.images, with_features=request.pseudonyms is not None)


def _write_page(display: Display, output: Output, images: str) -> None:
    from mission9.html_report import write_report_if_possible  # not always needed

    with display.stage("report"):
        write_report_if_possible(output.root, images)
        output.publish_page()


@contextmanager
def _stage(display: Display, report: Report, name: str) -> Iterator[None]:
    with display.stage(name), report.timed(name):
        yield


def _needs_runner(config: RunConfig, plan: Plan, report: Report) -> bool:
    """Return True if the work is too large for this process, or the user selected a runner and there is work to do."""
    is_little = report.listed <= SMALL_TABLE and plan.images_to_do <= FEW_IMAGES
    is_asked_for = config.runner != "auto" or config.master is not None or works_elsewhere(config)
    return not is_little or (bool(plan.shards) and is_asked_for)


def _extract(runner: Runner, root: Root, extraction: Extraction, output: Output, plan: Plan, report: Report) -> None:
    folder = output.shards(extraction.fingerprint)
    report.images_inferred = plan.images_to_do
    done_before = report.listed - plan.images_to_do
    logger.info("extract: %s images to do, %s done before", f"{plan.images_to_do:,}", f"{done_before:,}")
    task = ExtractShards(
        root=root,
        todo=plan.todo,
        shards=Shard.pack(plan.shards),
        extraction=extraction,
        folder=folder,
        shared=output.shared(extraction.fingerprint, name_of(plan)),
    )
    spent: dict[str, float] = {}
    with output.downloading(extraction.fingerprint, [shard.key for shard in plan.shards]):
        for seconds in runner.map(task, len(plan.shards)):
            add(spent, json.loads(seconds))
    report.cpu_seconds = {what: round(seconds, 2) for what, seconds in spent.items()}


def _compact(runner: Runner, output: Output, plan: Plan, report: Report, pseudonyms: Pseudonyms | None) -> Collected:
    """Make the tables from the committed shards, and check that no image is missing."""
    folder = output.shards(report.fingerprint)
    todo = tuple(part for part in plan.parts if read_marker(folder, part.key) is None)
    runner.map(CompactParts(plan.images, todo, folder), len(todo))
    collected = collect_shards(
        plan.parts,
        folder,
        features=output.work / FEATURES_FOLDER,
        rejects=output.work / REJECTS_FOLDER,
        pseudonyms=pseudonyms,
    )
    for split, counts in report.splits.items():
        counts.featured = collected.featured[split]
        counts.reasons = dict(collected.rejected.get(split, {}))
        counts.rejected = sum(counts.reasons.values())
    report.check_conserved()
    return collected


def _check_rejects(output: Output, report: Report) -> None:
    """Check the number of rejected images.

    Raises:
        TooManyRejects: it exceeds the limit, or too few images are left for the fit.
    """
    limit = report.config["max_reject_rate"]
    too_many = report.rejected == report.listed or report.rejected > limit * report.listed
    consequence = f"at most {limit:.1%} may be (--max-reject-rate)"
    try:
        if report.fitted_on:
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


def _measure_fidelity(
    root: Root, extraction: Extraction, collected: Collected, output: Output, plan: Plan, report: Report
) -> None:
    last = output.last_report()
    is_as_it_was = not plan.shards and last.get("fingerprint") == report.fingerprint
    known = fidelity_in(last) if is_as_it_was else None  # the same images and features
    report.fidelity = known or measure_fidelity(collected.committed, root, extraction)
    logger.info(
        "%s, decode %s: cosine to exact features %.5f (at least %.5f)",
        extraction.engine.precision,
        extraction.decode,
        report.fidelity["cosine_mean"],
        report.fidelity["cosine_min"],
    )


def _save_model(model: PCAModel, extraction: Extraction, output: Output, report: Report) -> None:
    folder = output.work / MODEL_FOLDER
    facts = {"fingerprint": report.fingerprint, "weights": redact_values(report.weights), "engine": report.engine}
    model.save(folder, facts | {"preprocess": extraction.preprocess, "decode": extraction.decode})
    write_atomic(folder / SAVED_FILE, extraction.weights.data)
    if extraction.int8:
        extraction.int8.save(folder)
    report.n_components = model.n_components_
    report.explained_variance_ratio = model.explained_variance_ratio_.tolist()
    logger.info("fit: %s components keep %.1f %% of the variance", model.n_components_, 100 * report.variance_kept)
