"""Verify an output folder: list all differences from the state in which its run left it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from mission9.crypto.pseudonyms import Pseudonyms, TableNames, check_key
from mission9.errors import Mission9Error, NoResultError, OutputError
from mission9.model_facts import ModelFacts
from mission9.models.weights import read_saved_weights
from mission9.output.audit_log import ends_with_erasure
from mission9.output.audit_log import verify as verify_log
from mission9.output.layout import (
    FEATURES_FOLDER,
    MODEL_FOLDER,
    PAGE,
    REJECTS_FOLDER,
    REPORT,
    SHARDS,
    TABLES,
    done_file,
)
from mission9.output.local import Output
from mission9.output.open import existing_output
from mission9.output.place import OutputPlace
from mission9.output.report_file import page_problem
from mission9.output.run_report import Report, report_of
from mission9.output.shards import damaged, read_marker, read_rejects
from mission9.output.tables import DAMAGE, read_table, row_groups
from mission9.pca import PCAModel
from mission9.results.reader import of_one_run
from mission9.results.verify_scores import ScoresCheck
from mission9.schema import FEATURES_TABLE, PLAN, REJECTS_TABLE, is_as_written
from mission9.storage.local.files import file_sha256, files_below
from mission9.storage.local.names import from_text


def verify_output(root: str, pseudonyms: Pseudonyms | None = None) -> Iterator[str]:
    """Yield each problem of a result as a sentence; none if it is complete and its tables belong together.

    The check compares files with the SHA-256 recorded at their commit, rows with the listing and the counts of
    `run.json`, scores with the features and the model, and the audit log with its chain and the receipts. One part (at
    most 16,384 images) is in memory at a time.
    In a result with pseudonyms, `pseudonyms` match the rows with the listing; without these, only the numbers of rows
    are compared.

    Raises:
        OutputError: there is no result in `root`, for another reason than the erasure of all its images.
        ConfigError: the result was made with another key.
    """
    place = existing_output(root)
    state = place.state_files()
    try:
        yield from _problems_of_result(place, pseudonyms)
    except NoResultError:
        if not ends_with_erasure(state):
            raise
    yield from verify_log(state, place.last_report())


def _problems_of_result(place: OutputPlace, pseudonyms: Pseudonyms | None) -> Iterator[str]:
    output = Output(place.result(to_verify=True))
    if pseudonyms:
        check_key(pseudonyms, str(output.last_report().get("pseudonyms", "")), place.name)
    for problem in of_one_run(output, lambda: list(_problems(output, pseudonyms))):
        yield problem.replace(str(output.root), place.name)


def _problems(output: Output, pseudonyms: Pseudonyms | None) -> Iterator[str]:
    report = _report(output)
    names = TableNames(is_public=not report.pseudonyms, pseudonyms=pseudonyms)
    yield from _check_checksums(output)
    yield from _check_page(output, report)
    model, problems = _model(output, report)
    yield from problems
    plan = done_file(output.shards(report.fingerprint))
    if not plan.exists():
        yield f"{plan} is missing, which lists the images of this result: run again"
        return
    seen: Counter[tuple[str, str]] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    rejects: list[pa.Table] = []
    parts = 0
    with ScoresCheck(output, has_csv=not report.encrypted) as scores:
        for number, rows in enumerate(_listed(plan)):
            key, split = rows["part"][0].as_py(), rows["split"][0].as_py()
            yield from _check_files(output, report, key, number)
            parts = number + 1
            part = _read(output, FEATURES_FOLDER, number)
            refused = _rejects(output.shards(report.fingerprint), key)
            rejects.append(names.of(refused.select(["path", "reason"])))
            seen[split, "featured"] += len(part)
            reasons.update((split, reason) for reason in refused["reason"].to_pylist())
            if names.differ(rows, pa.concat_tables([part.select(["path"]), names.of(refused.select(["path"]))])):
                yield f"the rows of part {number} are not the images listed for it"
            elif model is not None and len(part):
                yield from scores.check(split, part, model)
    yield from _check_strangers(output, parts)
    yield from _check_counts(report, seen, reasons)
    yield from _check_rejects(output, rejects, names)
    yield from scores.left_over(seen)


def _report(output: Output) -> Report:
    if output.ready.exists():
        raise OutputError(f"the last run was killed while it published in {output.root}: run again to complete it")
    if output.published() and not (output.root / REPORT).exists() and not (output.state / SHARDS).exists():
        raise OutputError(
            f"{output.root} holds tables that save_pca_results wrote, without the features and checksums of a run: "
            "there is nothing to hold them against"
        )
    return report_of(output.last_report(), output.root)


def _listed(plan: Path) -> Iterator[pa.Table]:
    """The images listed for a result, part by part; checks that each is listed once, in order of path.

    Raises:
        OutputError: the plan is damaged.
    """
    last = b""
    try:
        for rows in row_groups(plan):
            if not rows.schema.equals(PLAN):
                raise ValueError("other columns")
            paths = [last, *map(from_text, rows["path"].to_pylist())]
            if any(path >= following for path, following in pairwise(paths)):
                raise ValueError("an image is listed twice, or out of order")
            last = paths[-1]
            yield rows
    except DAMAGE as error:
        raise OutputError(f"{plan} is damaged, which lists the images of this result: run again") from error


def _rejects(folder: Path, key: str) -> pa.Table:
    try:
        return read_rejects(folder, key)
    except DAMAGE:  # the check of its checksum reports it
        return REJECTS_TABLE.empty_table()


def _model(output: Output, report: Report) -> tuple[PCAModel | None, list[str]]:
    folder = output.root / MODEL_FOLDER
    try:
        model = PCAModel.load(folder)
        facts = ModelFacts.of(model, folder, needs_precision=False)
        read_saved_weights(folder, name=facts.weights, sha256=facts.weights_sha256)
    except Mission9Error as error:
        return None, [str(error)]
    same = model.facts.get("fingerprint") == report.fingerprint
    return model, [] if same else [f"the PCA model in {folder} was made of other features than {REPORT} names"]


def _check_files(output: Output, report: Report, key: str, number: int) -> Iterator[str]:
    folder = output.shards(report.fingerprint)
    marker, published = read_marker(folder, key), _part_file(output, FEATURES_FOLDER, number)
    if marker is None:
        yield f"{published} is not whole, or what it was made of: run again, which computes what is missing"
        return
    yield from (f"{file} is damaged: run again, which computes it anew" for file in damaged(folder, key))
    if marker.features.rows and not published.exists():
        yield f"{published} is missing: run again"
    elif marker.features.rows and not report.pseudonyms and file_sha256(published) != marker.features.sha256:
        yield f"{published} is damaged: run again"


def _check_checksums(output: Output) -> Iterator[str]:
    checksums = output.checksums()
    if REPORT not in checksums:
        yield f"the checksums of {output.root} are missing: run again"
    for name, sha256 in checksums.items():
        file = output.root / name
        if not file.is_file():
            yield f"{file} is missing: run again"
        elif file_sha256(file) != sha256:
            yield f"{file} is damaged: run again"


def _check_strangers(output: Output, parts: int) -> Iterator[str]:
    """Report files in the tables that are not part of this result: readers of a whole folder would include them."""
    ours = {output.root / name for name in output.checksums()}
    ours.update(_part_file(output, FEATURES_FOLDER, number) for number in range(parts))
    for table in sorted(TABLES):
        folder = output.root / table
        for file in sorted(files_below(folder)) if folder.is_dir() else ():
            if file not in ours:
                yield f"{file} is not of this result, and readers of {folder} take it in: delete it"


def _check_page(output: Output, report: Report) -> Iterator[str]:
    problem = page_problem(output.root / PAGE, report.run_id)
    if problem:
        yield f"{output.root / PAGE} {problem}"


def _check_counts(report: Report, seen: Counter[tuple[str, str]], reasons: Counter[tuple[str, str]]) -> Iterator[str]:
    for split, counts in report.splits.items():
        if seen[split, "featured"] != counts.featured:
            yield f"{split}: {seen[split, 'featured']:,} rows of features, and {counts.featured:,} in {REPORT}"
        found = {reason: count for (where, reason), count in reasons.items() if where == split}
        if found != counts.reasons:
            yield f"{split}: rejects are {found}, and {counts.reasons} in {REPORT}"


def _check_rejects(output: Output, wanted: list[pa.Table], names: TableNames) -> Iterator[str]:
    found = _read(output, REJECTS_FOLDER, 0)
    if names.known(found.select(["path", "reason"])) != names.known(pa.concat_tables(wanted)):
        yield f"{output.root / REJECTS_FOLDER} does not hold the images that were rejected"


def _part_file(output: Output, folder: str, number: int) -> Path:
    return output.root / folder / f"part-{number:05d}.parquet"


def _read(output: Output, folder: str, number: int) -> pa.Table:
    file = _part_file(output, folder, number)
    schema = FEATURES_TABLE if folder == FEATURES_FOLDER else REJECTS_TABLE
    try:
        found = read_table(file) if file.exists() else schema.empty_table()
    except (pa.ArrowException, OSError):
        found = schema.empty_table()
    return found if is_as_written(found, schema) else schema.empty_table()  # the checksum reports it
