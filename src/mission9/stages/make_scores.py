"""Collected features and a model -> all tables of scores."""

from __future__ import annotations

from mission9.crypto.parquet import for_writing
from mission9.output.csv_scores import csv_file
from mission9.output.layout import scores_folder
from mission9.output.local import Output
from mission9.pca import PCAModel
from mission9.runners.base import Runner
from mission9.stages.collect_shards import Collected
from mission9.stages.project import project
from mission9.stages.save_results import save_results
from mission9.storage.local.files import remove_folder


def make_scores(runner: Runner, model: PCAModel, collected: Collected, output: Output, *, plain_csv: bool) -> None:
    """Make the tables of scores from the collected features, in `output.work`."""
    chunks = output.state / "chunks"
    for split, scores in project(runner, model, collected.features, chunks).items():
        csv = None if for_writing() else output.work / csv_file(split)  # a CSV would reveal the encrypted values
        save_results(
            scores, output.work / scores_folder(split), csv, components=model.n_components_, plain_csv=plain_csv
        )
    remove_folder(chunks)
