"""The command line: arguments -> a call of the library -> an exit code."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter
from pydantic import ValidationError
from rich.console import Console

import mission9
from mission9.config import Flag, RunConfig, explain
from mission9.engines import Device, EngineName
from mission9.errors import ImageError, Mission9Error
from mission9.page_file import PAGE
from mission9.redact import shown
from mission9.storage import in_words
from mission9.subset import PERCENTAGES

if TYPE_CHECKING:
    from mission9.stages.report import Report

# What shells expect of a program that Ctrl-C ended, or a signal to terminate.
INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """The system asks the program to end: in all else it is as Ctrl-C."""


_console = Console(stderr=True, soft_wrap=True, highlight=False)

_MAKE, _USE, _ELSE = map(Group.create_ordered, ("Make a result", "Use a result", "Else"))

app = App(
    name="mission9",
    help="""Turn folders of labelled images into MobileNetV2 features and a compact PCA space.

    To begin: `mission9 demo` needs neither images nor a network. Then: `mission9 run --input IMAGES --output RESULTS`.
    `mission9 COMMAND --help` tells more, with examples.
    """,
    group_commands=_USE,  # of commands that name no other
    version=mission9.__version__,
    version_flags="--version",
    help_flags=["--help", "-h"],
    suppress_keyboard_interrupt=False,  # main has its own word for it
)

app.register_install_completion_command(help="Teach your shell to complete mission9's commands and options.")
for _flag in ("--help", "--version", "--install-completion"):
    app[_flag].group = _ELSE


def program() -> NoReturn:
    """Be the program `mission9`: carry out this process's command line, and exit."""
    _take_names_as_utf8()
    signal.signal(signal.SIGTERM, _terminate)
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):  # how it ended is settled; Python's own end takes a moment
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code: 0 done, 2 usage, 3 too many rejects, 1 anything else."""
    _set_up_logging()
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(_explain(error), 2)
    except Mission9Error as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of a command that is no run; a run has told it
        return _fail(in_words(error), 1)
    except KeyboardInterrupt as error:
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        return _fail("interrupted; the same command goes on where this one stopped", code)
    return code if isinstance(code, int) else 0


def _take_names_as_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where it is off and the locale has names be ASCII or Latin-1.

    Folders of labels are named in UTF-8, as readers of tables expect, and workers inherit the mode.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        # The option as well, since Python may have been told to ignore the environment.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001 - as signals call
    raise Terminated


def _set_up_logging() -> None:
    handler = _ConsoleHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    # py4j writes to the root logger, and at length, that Spark went away when Ctrl-C told it to.
    handler.addFilter(lambda record: record.name != "root")
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("mission9").setLevel(logging.INFO)
    logging.getLogger("py4j").setLevel(logging.CRITICAL)


class _OneLine(logging.Formatter):
    """A message on one line: no file's name can make it look like two."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return shown(super().formatMessage(record))


class _ConsoleHandler(logging.Handler):
    """Lines above the bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        _console.print(self.format(record), markup=False)


@app.command(group=_MAKE)
def run(*, config: RunConfig | None = None) -> None:
    """Turn a folder of images into features, a PCA model and tables of scores.

    What was computed before, with the same images and settings, is not computed again. Each option can also be set in
    the environment (MISSION9_BATCH_SIZE=8) or in the file given with --config (batch_size = 8).

    ```bash
    mission9 run --input photos --output results --weights demo
    mission9 run --input photos --output results --components 0.95
    mission9 run --input newer --output later --pca-model results/pca_model
    ```
    """
    from mission9.pipeline import run as run_pipeline

    report = run_pipeline(config or RunConfig(), console=_console)
    _print_report(report)


@app.command(group=_MAKE)
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
    from mission9.pipeline import run as run_pipeline
    from mission9.sample import write_sample

    images, results = output / "fruits", output / "Results"
    count = write_sample(images)
    logging.getLogger("mission9").info("sample: %s generated photographs in %s", count, images)
    report = run_pipeline(RunConfig(input=str(images), output=str(results), weights="demo"), console=_console)
    _print_report(report)
    print("\nOpen them in Python:\n")
    print("    import pandas as pd")
    _say(f'    scores = pd.read_csv("{results}/training_pca_csv/part-00000.csv")')
    print('    print(scores.groupby("label")[["pc_1", "pc_2", "pc_3"]].mean())')


@app.command(group=_MAKE)
def doctor(
    *, config: RunConfig | None = None, json_: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> int:
    """Look at what of this machine would keep a run from going well; takes the options of `mission9 run`.

    A line each: ok, warning or problem, with what to do. The exit code is 1 if there is a problem.

    ```bash
    mission9 doctor --input photos --output results
    ```

    Parameters
    ----------
    config:
        What the run would be given.
    json_:
        Print a line of JSON for each finding.
    """
    from mission9.doctor import examine

    status = 0
    for finding in examine(config or RunConfig()):
        status = 1 if finding.status == "problem" else status
        if json_:
            print(json.dumps(asdict(finding), ensure_ascii=False), flush=True)
        else:
            _say(f"{finding.status:<9}{finding.what:<17}{finding.found}")
            if finding.remedy:
                _say(f"{'':<26}-> {finding.remedy}")
    return status


@app.command
def verify(output: Path = Path("data/Results"), /) -> int:
    """Check a result: files against their checksums, rows against the listing, scores against features and model.

    Prints what is wrong, a line each; the exit code is 1 if anything is. The same run again mends what it can.

    ```bash
    mission9 verify results
    ```

    Parameters
    ----------
    output:
        The output folder of an earlier run.
    """
    from mission9.stages.verify_output import verify_output

    problems = 0
    for problem in verify_output(str(output)):
        problems += 1
        _say(problem)
    _say(f"{problems} problems in {output}" if problems else f"{output} is whole")
    return 1 if problems else 0


@app.command
def evaluate(
    output: Path = Path("data/Results"),
    /,
    *,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Tell how well the scores of a run tell labels apart, and how many components are enough.

    Images of Test are told by those of Training: by their nearest neighbour, by five, and by logistic regression, for
    all labels and for each. Without a Test, every fifth image of a label is told by the others.

    ```bash
    mission9 evaluate results
    mission9 evaluate results --json
    ```

    Parameters
    ----------
    output:
        The output folder of an earlier run.
    json_:
        Print everything as JSON, the confusion matrix too.
    """
    from mission9.evaluate import as_text
    from mission9.evaluate import evaluate as judge
    from mission9.results import Results

    found = judge(Results.of(output))
    if json_:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    for line in as_text(found):
        _say(line)


@app.command
def export(output: Path = Path("data/Results"), /, *, onnx: Path) -> None:
    """Write features and PCA as one ONNX graph: pictures of 224 by 224 pixels go in, scores come out.

    ```bash
    mission9 export results --onnx model.onnx
    ```

    Parameters
    ----------
    output:
        The output folder of an earlier run.
    onnx:
        File to write.
    """
    from mission9.interop import export_onnx
    from mission9.output import MODEL_FOLDER

    export_onnx(output / MODEL_FOLDER, onnx)
    _say(f"{onnx}: (n, 224, 224, 3) uint8 RGB -> scores; its metadata says how pictures are resized")


@app.command
def log(output: Path = Path("data/Results"), /, *, mlflow: str | None = None) -> None:
    """Send the results of a run to MLflow: settings, figures, files, and the PCA model, ready to be served.

    What was sent before stays as it is; what was cut short is completed.

    ```bash
    mission9 log results --mlflow http://127.0.0.1:5009
    mission9 log results --mlflow local
    ```

    Parameters
    ----------
    output:
        The output folder of an earlier run.
    mlflow:
        Address of the server, or local for mlflow.db and mlruns/ in the current folder [env: MLFLOW_TRACKING_URI].
    """
    from mission9.results import Results
    from mission9.tracking import LOCAL, log_results

    _say(log_results(Results.of(output), mlflow or os.environ.get("MLFLOW_TRACKING_URI") or LOCAL))


@app.command
def report(
    output: Path = Path("data/Results"), /, *, input_: Annotated[Path | None, Parameter("--input")] = None
) -> None:
    """Write OUTPUT/report.html anew: one file to look at a result, which needs neither network nor server.

    ```bash
    mission9 report results
    mission9 report results --input moved/photos
    ```

    Parameters
    ----------
    output:
        The output folder of an earlier run.
    input_:
        Where the images are now, for thumbnails; by default where the run read them.
    """
    from mission9.html_report import write_report
    from mission9.results import Results

    file = output / PAGE
    seconds = write_report(Results.of(output), file, None if input_ is None else str(input_))
    parts = ", ".join(f"{part} {spent:.1f} s" for part, spent in seconds.items())
    _say(f"{file}: {file.stat().st_size / 1e6:.1f} MB ({parts})")


@app.command
def project(
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    model: Path,
    device: Device = "auto",
    engine: EngineName = "auto",
) -> int:
    """Project new images into the space of an earlier run: a JSON line each, with its path and scores.

    ```bash
    mission9 project --model results/pca_model new/1.jpg new/2.jpg
    ```

    Parameters
    ----------
    images:
        Image files.
    model:
        The folder pca_model in an earlier run's output.
    device:
        Where features are computed.
    engine:
        What computes them.
    """
    from mission9.projector import Projector

    projector = Projector(model, device=device, engine=engine)
    failed = 0
    for path in images:
        try:
            print(json.dumps({"path": str(path), "pca": projector(path).tolist()}), flush=True)
        except ImageError as error:
            failed += 1
            print(json.dumps({"path": str(path), "error": error.reason, "message": str(error)}), flush=True)
    return 1 if failed else 0


@app.command(group=_MAKE)
def subset(
    *,
    percentage: float | None = None,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    input_: Annotated[Path, Parameter(name="--input")] = Path("dataset/fruits-360_dataset/fruits-360"),
    output: Path = Path("dataset/subsets"),
    copy: Flag = False,
) -> int:
    """Make a smaller dataset: a share of the images of every label, always the same ones.

    A subset holds all smaller ones. The images are hard links where the file system allows: they take no room.

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
        List the subsets there are.
    input_:
        The dataset.
    output:
        Folder for the subsets.
    copy:
        Copy the images instead of linking them.
    """
    from mission9.subset import list_subsets, make_subset

    if (percentage is not None) + all_ + list_ != 1:
        return _fail("give one of --percentage P, --all and --list (mission9 subset --help)", 2)
    if list_:
        for name, count in list_subsets(output).items():
            _say(f"{name}: {count:,} images")
        return 0
    for share in PERCENTAGES if percentage is None else [percentage]:
        folder, count = make_subset(input_, output, share, copy=copy)
        _say(f"{folder}: {count:,} images")
    return 0


def _print_report(report: Report) -> None:
    for name, split in report.splits.items():
        print(f"{name:<12}{split.listed:>9,} listed {split.featured:>9,} featured {split.rejected:>7,} rejected")
    if report.skipped:
        files = ", ".join(f"{count:,} {extension}" for extension, count in sorted(report.skipped.items()))
        _say(f"{'not images':<12}{sum(report.skipped.values()):>9,} skipped ({files})")
    print(f"{report.n_components} components keep {report.variance_kept:.1%} of the variance of {report.fitted_on}")
    print(", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items()))
    page = Path(report.config["output"], PAGE)
    if page.exists():
        _say(f"to look at in a browser: {page}")
    _say(f"results in {report.config['output']}; images inferred in this run: {report.images_inferred:,}")


def _explain(error: CycloptsError) -> str:
    cause = error.__cause__
    return explain(cause) if isinstance(cause, ValidationError) else str(error)


def _fail(message: str, code: int) -> int:
    _console.print(f"mission9: {shown(message)}", markup=False)
    return code


def _say(text: str) -> None:
    print(shown(text), flush=True)
