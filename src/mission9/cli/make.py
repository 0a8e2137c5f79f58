"""The commands that make a result, a dataset or a pack."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from mission9.cli.app import MAKE, app
from mission9.cli.console import console, fail, say, say_json
from mission9.config import Flag, RunConfig, found_input
from mission9.datasets.fetch.find_layout import Variant
from mission9.datasets.fetch.kaggle import VERSION
from mission9.datasets.subset import PERCENTAGES
from mission9.options import SplitsFrom
from mission9.output.open import output_at

if TYPE_CHECKING:
    from mission9.output.run_report import Report


Reader = Literal["python", "spark"]

DEFAULT_INPUT: str = RunConfig.model_fields["input"].default


@app.command(group=MAKE)
def run(*, config: RunConfig | None = None) -> None:
    """Turn a folder of images into features, a PCA model and tables of scores.

    Features of the same images and settings are computed once: a later run reuses them. Each option can also be set in
    the environment (MISSION9_BATCH_SIZE=8) or in the file given with --config (batch_size = 8).

    ```bash
    mission9 run --input photos --output results --weights demo
    mission9 run --input photos --output results --components 0.95
    mission9 run --input newer --output later --pca-model results/pca_model
    ```
    """
    from mission9.pipeline.run import run as run_pipeline

    report = run_pipeline(config or RunConfig(), console=console)
    _print_report(report)


@app.command(group=MAKE)
def demo(*, output: Path = Path("data/demo")) -> None:
    """Run the whole pipeline on generated photographs of fruit, with the bundled weights.

    ```bash
    mission9 demo --output data/demo
    ```

    Parameters
    ----------
    output:
        Folder for the photographs (fruits/) and the results (Results/).
    """
    from mission9.datasets.demo import write_sample
    from mission9.output.csv_scores import csv_file
    from mission9.pipeline.run import run as run_pipeline

    images, results = output / "fruits", output / "Results"
    count = write_sample(images)
    logging.getLogger("mission9").info("sample: %s generated photographs in %s", count, images)
    report = run_pipeline(RunConfig(input=str(images), output=str(results), weights="demo"), console=console)
    _print_report(report)
    print("\nOpen them in Python:\n")
    print("    import pandas as pd")
    say(f'    scores = pd.read_csv("{results / csv_file("Training")}")')
    print('    print(scores.groupby("label")[["pc_1", "pc_2", "pc_3"]].mean())')


@app.command(group=MAKE)
def doctor(
    *, config: RunConfig | None = None, json_: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> int:
    """Check this machine for problems that would stop a run; takes the options of `mission9 run`.

    It prints a line for each finding: ok, warning or problem, with a remedy. The exit code is 1 if there is a problem.

    ```bash
    mission9 doctor --input photos --output results
    ```

    Parameters
    ----------
    config:
        The settings of the run.
    json_:
        Print a line of JSON for each finding.
    """
    from mission9.doctor.checks import examine

    status = 0
    for finding in examine(config or RunConfig()):
        status = 1 if finding.status == "problem" else status
        if json_:
            say_json(asdict(finding))
        else:
            say(f"{finding.status:<9}{finding.what:<17}{finding.found}")
            if finding.remedy:
                say(f"{'':<26}-> {finding.remedy}")
    return status


@app.command(group=MAKE)
def subset(
    *,
    percentage: float | None = None,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    input_: Annotated[Path, Parameter(name="--input")] = Path(DEFAULT_INPUT),
    output: Path = Path("dataset/subsets"),
    copy: Flag = False,
) -> int:
    """Make a smaller dataset: the same share of the images of every label, always the same images.

    A subset contains all smaller ones. Its images are hard links, which take no space, or copies if the file system has
    no links.

    ```bash
    mission9 subset --input photos --output subsets --percentage 10
    mission9 subset --output subsets --list
    ```

    Parameters
    ----------
    percentage:
        Share of each label's images to take; at least one is taken.
    all_:
        Make the usual subsets: 1, 5, 10, 25 and 50 percent.
    list_:
        List the existing subsets.
    input_:
        The dataset.
    output:
        Folder for the subsets.
    copy:
        Copy the images instead of linking them.
    """
    from mission9.datasets.subset import list_subsets, make_subset

    if (percentage is not None) + all_ + list_ != 1:
        return fail("give one of --percentage P, --all and --list (mission9 subset --help)", 2)
    if list_:
        for name, count in list_subsets(output).items():
            say(f"{name}: {count:,} images")
        return 0
    skipped: Mapping[str, int] = {}
    for share in PERCENTAGES if percentage is None else [percentage]:
        folder, count, skipped = make_subset(Path(found_input(str(input_))), output, share, copy=copy)
        say(f"{folder}: {count:,} images")
    if skipped:
        say(_skipped(skipped))
    return 0


@app.command(group=MAKE)
def pack(
    *,
    input_: Annotated[str, Parameter(name="--input")] = DEFAULT_INPUT,
    output: str,
    splits: SplitsFrom = "auto",
    label_level: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    all_files: Flag = False,
    follow_links: Flag = False,
    overwrite: Flag = False,
    workers: int | None = None,
    reader: Reader = "python",
) -> int:
    """Pack many small images once into few large Parquet files, which `mission9 run --input PACK` takes as input.

    The same command again reads only new images. From a bucket, a run reads a pack by a hundredth of the requests.

    ```bash
    mission9 pack --input photos --output packed
    mission9 pack --input s3://bucket/photos --output s3://bucket/packed
    mission9 pack --input hdfs://namenode/photos --output s3://bucket/packed --reader spark
    ```

    Parameters
    ----------
    input_:
        Folder of images, s3://BUCKET/PREFIX, or a URL of fsspec; with --reader spark any URL that Spark can read.
    output:
        Folder for the pack, or s3://BUCKET/PREFIX; made if absent.
    splits:
        Folders like Training, valid or test_set are splits; auto: where that is clear; folders: also next to labels;
        none: all are labels.
    label_level:
        Folder that is the label: 1 is the first below the split, 2 the next; default: the one that holds the image.
    all_files:
        Pack every file: also by other names, and in folders of tools.
    follow_links:
        Follow links that lead out of the input.
    overwrite:
        Read and pack everything again.
    workers:
        Worker processes; default: one a core.
    reader:
        Who reads: Python; or Spark, what only Java can read. Spark does not see names that begin with _ or a dot, and
        reads everything each time.
    """
    from mission9.pack.make_pack import make_pack, make_pack_by_spark
    from mission9.sources.listing import Listing

    listing = Listing(all_files=all_files, splits_from=splits, follow_links=follow_links, label_level=label_level)
    if reader == "spark":
        report = make_pack_by_spark(found_input(input_), output, listing=listing)
    else:
        report = make_pack(found_input(input_), output, listing=listing, overwrite=overwrite, workers=workers)
    for name, count in sorted(report.splits.items()):
        print(f"{name:<12}{count:>9,} listed")
    if report.skipped:
        say(_skipped(report.skipped))
    if report.gone:
        say(f"{report.gone:,} that the pack held have changed or are gone")
    if report.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.reasons.most_common())
        say(f"{report.rejected:,} could not be read ({reasons}): each is a row of {report.place}/rejects")
    say(
        f"{report.packed:,} images ({report.bytes / 1e6:,.1f} MB) in {report.parts:,} files in {report.place}; "
        f"read in this run: {report.read:,}"
    )
    return 0


@app.command(group=MAKE)
def fetch(
    *,
    output: Path = Path("dataset"),
    archive: Path | None = None,
    variant: Variant | None = None,
    version: int = VERSION,
) -> int:
    """Download Fruits-360 from Kaggle, or unpack a local archive, to the default --input of `mission9 run`.

    No archive is trusted: one with links, bombs, or names that lead elsewhere is refused as a whole. The folder
    appears once it is complete, with licence, author and the SHA-256 of the archive in files next to it.

    ```bash
    mission9 fetch
    mission9 fetch --archive fruits.zip --variant original --output datasets
    ```

    Parameters
    ----------
    output:
        Folder to put fruits-360_dataset/fruits-360 in.
    archive:
        A local .zip, .tar or .tar.gz file to unpack instead of a download.
    variant:
        Images of 100x100 pixels, or of their original size, if the archive has both.
    version:
        The version of Kaggle's dataset.
    """
    from mission9.datasets.fetch.fetch_dataset import ATTRIBUTION, fetch_dataset

    fetched = fetch_dataset(output, archive=archive, version=version, variant=variant)
    for name, count in fetched.source.images.items():
        print(f"{name:<12}{count:>9,} images")
    state = "ready" if fetched.is_new else "there already"
    say(f"{fetched.images}: {state}; authors and licence: {fetched.images.parent / ATTRIBUTION}")
    return 0


def _skipped(skipped: Mapping[str, int]) -> str:
    files = ", ".join(f"{count:,} {extension}" for extension, count in sorted(skipped.items()))
    return f"{'not images':<12}{sum(skipped.values()):>9,} skipped ({files})"


def _print_report(report: Report) -> None:
    for name, split in report.splits.items():
        print(f"{name:<12}{split.listed:>9,} listed {split.featured:>9,} featured {split.rejected:>7,} rejected")
    if report.skipped:
        say(_skipped(report.skipped))
    fitted_on = report.fitted_on or "the images that the given model was fitted on"
    print(f"{report.n_components} components keep {report.variance_kept:.1%} of the variance of {fitted_on}")
    print(", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items()))
    if page := output_at(report.config["output"]).page(report.run_id):
        say(f"to look at in a browser: {page}")
    say(f"results in {report.config['output']}; images inferred in this run: {report.images_inferred:,}")
