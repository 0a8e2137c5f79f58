"""A whole run, stage by stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pyarrow as pa
from rich.console import Console

from mission9.audit_log import append
from mission9.config import RunConfig
from mission9.encryption import KeyedRunner, check_encryption, encrypted_by, for_writing
from mission9.engines import EngineSpec, check_cpu, choose_engine
from mission9.engines.int8 import Int8Network
from mission9.erasure.tombstones import Tombstones
from mission9.errors import ConfigError, InputError, ModelError, OutputError, TooManyRejects
from mission9.estimate.kept import compare, read_estimate
from mission9.extraction import Extraction
from mission9.files import remove_folder, write_whole
from mission9.mobilenet_v2 import FEATURES
from mission9.output import FEATURES_FOLDER, MODEL_FOLDER, REJECTS_FOLDER, Output, open_output, scores_folder
from mission9.pca import PCAModel, check_components
from mission9.places import model_here, real_root
from mission9.policy import enforce_policy
from mission9.progress import Display, ShardWatch
from mission9.pseudonyms import Pseudonyms, check_key
from mission9.redact import redact_values
from mission9.runners import InProcessRunner, Runner, works_elsewhere
from mission9.runners.background import BackgroundRunner
from mission9.s3.address import is_s3
from mission9.shards import read_marker
from mission9.sources import settled
from mission9.stages.calibrate_int8 import calibrate_int8
from mission9.stages.collect_shards import Collected, collect_shards
from mission9.stages.compact_shards import CompactParts
from mission9.stages.extract_shard import ExtractShards, GetReady
from mission9.stages.find_known import Known, nothing_is_as_it_was
from mission9.stages.fit_pca import fit_pca
from mission9.stages.infer_features import add
from mission9.stages.list_images import Found, check_folder, fitting_split, has_more_images, list_images
from mission9.stages.measure_fidelity import measure_fidelity
from mission9.stages.plan_shards import Plan, finish, plan_shards
from mission9.stages.project import project
from mission9.stages.report import Report, SplitCounts
from mission9.stages.save_results import save_results
from mission9.stages.verify_content import VerifyContent
from mission9.storage import storage_told
from mission9.weights import SAVED_FILE, check_weights, load_weights

logger = logging.getLogger(__name__)

# Tables of no more rows are gathered, fitted and projected in this process, in a second or two.
SMALL_TABLE = 10_000
# So few images are extracted in this process before Spark would have started.
FEW_IMAGES = 256


def run(config: RunConfig, runner: Runner | None = None, *, console: Console | None = None) -> Report:
    """Turn a folder of images into features, a PCA model and tables of scores.

    What an earlier run of the same images and settings has committed is not computed again. Without `runner`, it is
    chosen by the settings, and what is started for it is ended. On a `console` that is a terminal a bar shows how far
    it is; otherwise lines of the log do.

    Raises:
        UsageError: the request cannot be carried out; nothing was written.
        SetupError: the machine lacks something.
        StorageError: a disk is full, or a file system fails; what was committed before stays.
        TaskError: a task failed again and again; what was committed before stays.
        TooManyRejects: more images were rejected than `config.max_reject_rate` allows.
    """
    check_folder(config.input)
    pseudonyms = Pseudonyms.of(config.pseudonymise)
    policy = enforce_policy(config)
    estimate = read_estimate(config.estimate) if config.estimate else None
    display = Display(console)
    with (
        storage_told(config.output, config.input),
        encrypted_by(config.encrypt_key),
        open_output(config.output, overwrite=config.overwrite) as output,
        BackgroundRunner(config, runner) as background,
        BackgroundRunner(config.model_copy(update={"runner": "local", "master": None})) as here,
    ):
        check_encryption(output.state, config.encrypt_key, config.output)
        engine = _settle_engine(config)
        check_weights(config.weights)
        if runner is None and output.is_empty and has_more_images(config.input, FEW_IMAGES):
            background.begin()  # it takes seconds, in which the rest gets ready
        extraction = _with_weights(config, engine)
        model = _given_model(config, extraction)
        extraction = _calibrated(config, extraction, output)
        background.warm_up(GetReady(extraction))
        report = _new_report(config, extraction, policy)
        report.pseudonyms = _key_id(pseudonyms, config, output)
        stage = partial(_stage, display, report)
        with stage("list"):
            plan = _list(config, extraction, output, report)
        with stage("start"):
            chosen = background.get() if _needs_runner(config, plan, report) else runner or InProcessRunner()
            runner = KeyedRunner(chosen, config.encrypt_key) if config.encrypt_key else chosen
        watch = ShardWatch(output.shards(extraction.fingerprint), plan.shards)
        with stage("extract"), display.counting(plan.images_to_do, watch.look):
            _extract(runner, extraction, output, plan, report)
        if report.listed <= SMALL_TABLE:
            background.end()
            runner = InProcessRunner()
        elif is_s3(output.place):  # what was committed has come here
            background.end()
            runner = here.get()
        with stage("compact"):
            collected = _compact(runner, output, plan, report, pseudonyms)
        _check_rejects(output, report)
        with stage("fit"):
            model = model or fit_pca(runner, collected.features.get(report.fitted_on, []), config.components)
        with stage("project"):
            make_scores(runner, model, collected, output, plain_csv=config.plain_csv)
        if extraction.engine.precision != "float32":
            with stage("fidelity"):
                _measure_fidelity(extraction, collected, output, plan, report)
        with stage("save_model"):
            _save_model(model, extraction, output, report)
        if estimate:
            _hold_against(estimate, config, report)
        report.audit = append(output.state_files, "run", report.audited())
        output.publish(report.to_json(), with_features=pseudonyms is not None)
        if not (config.no_report or config.encrypt_key):  # while the runner ends
            _write_page(display, output)
    if config.mlflow:
        from mission9.tracking import log_within_patience  # loads what other runs do not need

        log_within_patience(str(output.root), config.mlflow)
    return report


def _write_page(display: Display, output: Output) -> None:
    from mission9.html_report import write_report_if_possible  # loads what other runs do not need

    with display.stage("report"):
        write_report_if_possible(output.root)
        output.publish_page()


@contextmanager
def _stage(display: Display, report: Report, name: str) -> Iterator[None]:
    with display.stage(name), report.timed(name):
        yield


def make_extraction(config: RunConfig) -> Extraction:
    """Settle engine and weights on this side, so that workers neither choose nor download.

    Raises:
        UsageError: a setting is not possible, or the weights cannot be used.
        SetupError: this machine lacks a device or a package.
    """
    return _with_weights(config, _settle_engine(config))


def _settle_engine(config: RunConfig) -> EngineSpec:
    elsewhere = works_elsewhere(config)
    engine = choose_engine(
        engine=config.engine,
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
        elsewhere=elsewhere,
    )
    if not elsewhere:
        check_cpu(engine)
    return engine


def _with_weights(config: RunConfig, engine: EngineSpec) -> Extraction:
    return Extraction(
        engine=engine,
        weights=load_weights(config.weights),
        preprocess=config.preprocess,
        max_pixels=config.max_pixels,
        max_bytes=config.max_bytes,
    )


def _given_model(config: RunConfig, extraction: Extraction) -> PCAModel | None:
    """The model that `--pca-model` names, if it was made of such features."""
    if config.pca_model is None:
        return None
    model = PCAModel.load(model_here(config.pca_model), features=FEATURES)
    try:
        weights, preprocess = model.facts["weights"], model.facts["preprocess"]
        theirs = (weights["sha256"], preprocess, model.facts["engine"]["precision"])
        options = f"--weights {weights['name']} --preprocess {preprocess} --precision {theirs[-1]}"
    except (KeyError, TypeError) as error:
        raise ModelError(f"the PCA model in {config.pca_model} does not say what features it was made of") from error
    if theirs != (extraction.weights.sha256, extraction.preprocess, extraction.engine.precision):
        raise ConfigError(
            f"the PCA model in {config.pca_model} means nothing to other features than it was made of: give {options}, "
            "or fit anew without --pca-model"
        )
    return model


def _calibrated(config: RunConfig, extraction: Extraction, output: Output) -> Extraction:
    """The extraction with its int8 network, if it is to have one: the one of an earlier run, or a new one."""
    if extraction.engine.precision != "int8":
        return extraction
    folder = output.calibration(extraction.fingerprint)
    network = Int8Network.load(model_here(config.pca_model) if config.pca_model else folder)
    if network is None:
        listing = _images(config, output, Found())
        network = calibrate_int8(settled(config.input), listing, extraction, scratch=output.work)
        network.save(folder)
    return replace(extraction, int8=network)


def _hold_against(estimate: dict[str, Any], config: RunConfig, report: Report) -> None:
    spent, elsewhere = sum(report.seconds.values()), works_elsewhere(config)
    report.estimate = compare(estimate, seconds=spent, inferred=report.images_inferred, elsewhere=elsewhere)


def _new_report(config: RunConfig, extraction: Extraction, policy: dict[str, Any]) -> Report:
    return Report(
        config=config.model_dump(mode="json"),
        fingerprint=extraction.fingerprint,
        weights={"name": extraction.weights.name, "sha256": extraction.weights.sha256},
        engine=asdict(extraction.engine),
        policy=policy,
        encrypted=config.encrypt_key is not None,
    )


def _key_id(pseudonyms: Pseudonyms | None, config: RunConfig, output: Output) -> str:
    """What names the key of the run's pseudonyms; a result of pseudonyms is not replaced by one of paths by mistake."""
    if pseudonyms is None:
        check_key(None, str(output.last_report().get("pseudonyms", "")), config.output)
        return ""
    return pseudonyms.key_id


def _list(config: RunConfig, extraction: Extraction, output: Output, report: Report) -> Plan:
    found, folder = Found(), output.shards(extraction.fingerprint)
    root, results = settled(config.input), output.place
    if real_root(config.input) == results:
        raise OutputError(f"the results would lie among the images in {config.input}: give another --output")
    output.bring_shards(extraction.fingerprint)
    rows = _images(config, output, found)
    check = VerifyContent(root, folder, extraction.max_bytes) if config.verify_content else None
    known = Known(folder, check=nothing_is_as_it_was if config.overwrite else check)
    plan = plan_shards(_checked(rows, found, config), known, folder, extraction.shard_images)
    output.share_plan(extraction.fingerprint, plan.images, plan.todo, _name_of(plan))
    report.found, report.skipped, report.shards = found.total, dict(found.skipped), len(plan.shards)
    report.splits = {split: SplitCounts(listed=count) for split, count in sorted(found.listed.items())}
    report.fitted_on = "" if config.pca_model else fitting_split(found.listed)
    logger.info("list: %s images in %s", f"{report.listed:,}", config.input)
    return plan


def _images(config: RunConfig, output: Output, found: Found) -> Iterator[pa.RecordBatch]:
    """The images of a run: those that are found, without those that were erased."""
    rows = list_images(settled(config.input), found, all_files=config.all_files, leave_out=output.place)
    erased = Tombstones.of(output.state_files)
    if erased.is_pending:
        logger.warning("an erasure from %s was cut short: give the same mission9 erase again", config.output)
    return erased.leave_out(rows, found)


def _checked(rows: Iterator[pa.RecordBatch], found: Found, config: RunConfig) -> Iterator[pa.RecordBatch]:
    """The same rows; in the end, before a plan of them takes the place of an earlier one, what speaks against it."""
    yield from rows
    if not found.listed:
        raise InputError(f"there are no images in {config.input} ({found.total} other files); give another --input")
    if config.pca_model is None:
        check_components(config.components, found.listed[fitting_split(found.listed)], FEATURES)


def _needs_runner(config: RunConfig, plan: Plan, report: Report) -> bool:
    """Whether there is more to do than this process does sooner itself, or another runner was asked for."""
    is_little = report.listed <= SMALL_TABLE and plan.images_to_do <= FEW_IMAGES
    is_asked_for = config.runner != "auto" or config.master is not None or works_elsewhere(config)
    return not is_little or (bool(plan.shards) and is_asked_for)


def _extract(runner: Runner, extraction: Extraction, output: Output, plan: Plan, report: Report) -> None:
    folder = output.shards(extraction.fingerprint)
    report.images_inferred = plan.images_to_do
    done_before = report.listed - plan.images_to_do
    logger.info("extract: %s images to do, %s done before", f"{plan.images_to_do:,}", f"{done_before:,}")
    root = settled(report.config["input"])
    task = ExtractShards(
        root=root,
        todo=plan.todo,
        shards=plan.shards,
        extraction=extraction,
        folder=folder,
        shared=output.shared(extraction.fingerprint, _name_of(plan)),
    )
    spent: dict[str, float] = {}
    with output.receiving(extraction.fingerprint, [shard.key for shard in plan.shards]):
        add(spent, *(json.loads(seconds) for seconds in runner.map(task, len(plan.shards))))
    report.cpu_seconds = {what: round(seconds, 2) for what, seconds in spent.items()}


def _name_of(plan: Plan) -> str:
    """What names the rows that a plan has to do: workers of a run that was killed must not read those of the next."""
    return plan.shards[0].key if plan.shards else "nothing"


def _compact(runner: Runner, output: Output, plan: Plan, report: Report, pseudonyms: Pseudonyms | None) -> Collected:
    """Make the tables of what is committed, and see that no image is missing."""
    folder = output.shards(report.fingerprint)
    todo = tuple(part for part in plan.parts if read_marker(folder, part.key) is None)
    runner.map(CompactParts(plan.images, todo, folder), len(todo))
    finish(plan, folder)
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
    """Fail where too many were rejected, by the limit or by what is left to fit on."""
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


def make_scores(runner: Runner, model: PCAModel, collected: Collected, output: Output, *, plain_csv: bool) -> None:
    """Make the tables of scores of what is collected, in `output.work`."""
    chunks = output.state / "chunks"
    for split, scores in project(runner, model, collected.features, chunks).items():
        name = scores_folder(split)
        csv = None if for_writing() else output.work / f"{name}_csv"  # which would tell what is encrypted beside it
        save_results(scores, output.work / name, csv, components=model.n_components_, plain_csv=plain_csv)
    remove_folder(chunks)


def _measure_fidelity(extraction: Extraction, collected: Collected, output: Output, plan: Plan, report: Report) -> None:
    last = output.last_report()
    if not plan.shards and last.get("fingerprint") == report.fingerprint and _is_fidelity(last.get("fidelity")):
        report.fidelity = last["fidelity"]  # of the same images and features
    else:
        root = settled(report.config["input"])
        report.fidelity = measure_fidelity(collected.committed, root, extraction)
    logger.info(
        "%s: cosine to float32 %.4f (at least %.4f)",
        extraction.engine.precision,
        report.fidelity["cosine_mean"],
        report.fidelity["cosine_min"],
    )


def _is_fidelity(found: object) -> bool:
    """Whether a `run.json` holds what `measure_fidelity` once gave, and not what somebody made of it."""
    names = {"cosine_mean", "cosine_min"}
    return isinstance(found, dict) and names < found.keys() and all(isinstance(n, int | float) for n in found.values())


def _save_model(model: PCAModel, extraction: Extraction, output: Output, report: Report) -> None:
    folder = output.work / MODEL_FOLDER
    facts = {"fingerprint": report.fingerprint, "weights": redact_values(report.weights), "engine": report.engine}
    model.save(folder, facts | {"preprocess": extraction.preprocess})
    write_whole(folder / SAVED_FILE, extraction.weights.data)
    if extraction.int8:
        extraction.int8.save(folder)
    report.n_components = model.n_components_
    report.explained_variance_ratio = model.explained_variance_ratio_.tolist()
    logger.info("fit: %s components keep %.1f %% of the variance", model.n_components_, 100 * report.variance_kept)
