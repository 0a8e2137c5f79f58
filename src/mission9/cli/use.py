"""The commands that use a result."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mission9.cli.app import app
from mission9.cli.console import say, say_json
from mission9.errors import ImageError, TrackingError
from mission9.options import Device, EngineName
from mission9.output.layout import PAGE


@app.command
def verify(output: str = "data/Results", /, *, pseudonymise: str | None = None) -> int:
    """Check a result: files against their checksums, rows against the listing, scores against features and model.

    It checks the audit log too, and prints each problem on a line; the exit code is 1 if there is any. Run the same
    command again to repair the result.

    ```bash
    mission9 verify results
    ```

    Parameters
    ----------
    output:
        The output of an earlier run: a folder, or s3://BUCKET/PREFIX.
    pseudonymise:
        Key of the pseudonyms in the tables, env:NAME or a file, to check them against the listing by name.
    """
    from mission9.crypto.pseudonyms import Pseudonyms
    from mission9.results.verify import verify_output

    problems = 0
    for problem in verify_output(output, Pseudonyms.of(pseudonymise)):
        problems += 1
        say(problem)
    say(f"{problems} problems in {output}" if problems else f"{output} is whole")
    return 1 if problems else 0


@app.command
def evaluate(
    output: str = "data/Results",
    /,
    *,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Measure how well the scores of a run separate labels, and how many components are enough.

    Images of Test are classified from those of Training: by their nearest neighbour, by five, and by logistic
    regression, for all labels and for each. Without a Test, every fifth image of a label is classified from the others.

    ```bash
    mission9 evaluate results
    mission9 evaluate results --json
    ```

    Parameters
    ----------
    output:
        The output of an earlier run: a folder, or s3://BUCKET/PREFIX.
    json_:
        Print everything as JSON, the confusion matrix too.
    """
    from mission9.results.evaluate import as_text
    from mission9.results.evaluate import evaluate as judge
    from mission9.results.reader import of_one_result

    found = of_one_result(output, judge)
    if json_:
        say_json(asdict(found))
        return
    for line in as_text(found):
        say(line)


@app.command
def export(output: str = "data/Results", /, *, onnx: Path) -> None:
    """Write features and PCA as one ONNX graph: its input is pictures of 224 by 224 pixels, its output scores.

    ```bash
    mission9 export results --onnx model.onnx
    ```

    Parameters
    ----------
    output:
        The output of an earlier run: a folder, or s3://BUCKET/PREFIX.
    onnx:
        File to write.
    """
    from mission9.output.layout import MODEL_FOLDER
    from mission9.output.open import output_at
    from mission9.results.export import export_onnx

    export_onnx(output_at(output).result() / MODEL_FOLDER, onnx)
    say(f"{onnx}: (n, 224, 224, 3) uint8 RGB -> scores; its metadata says how pictures are resized")


@app.command
def log(output: str = "data/Results", /, *, mlflow: str | None = None) -> None:
    """Send the results of a run to MLflow: settings, figures, files, and the PCA model, ready to be served.

    Files sent before stay as they are; an interrupted transfer is completed.

    ```bash
    mission9 log results --mlflow http://127.0.0.1:5009
    mission9 log results --mlflow local
    ```

    Parameters
    ----------
    output:
        The output of an earlier run: a folder, or s3://BUCKET/PREFIX.
    mlflow:
        Address of the server, or local for mlflow.db and mlruns/ in the current folder [env: MLFLOW_TRACKING_URI].
    """
    from mission9.tracking import LOCAL, log_output
    from mission9.tracking.subprocess_logger import with_remedy

    try:
        say(log_output(output, mlflow or os.environ.get("MLFLOW_TRACKING_URI") or LOCAL))
    except TrackingError as error:
        raise TrackingError(with_remedy(str(error), output)) from error


@app.command
def report(output: str = "data/Results", /, *, input_: Annotated[str | None, Parameter("--input")] = None) -> None:
    """Rewrite OUTPUT/report.html: a self-contained page of the result, which needs neither network nor server.

    ```bash
    mission9 report results
    mission9 report results --input moved/photos
    ```

    Parameters
    ----------
    output:
        The output of an earlier run: a folder, or s3://BUCKET/PREFIX.
    input_:
        Where the images are now, for thumbnails; by default where the run read them.
    """
    from mission9.html_report import write_report
    from mission9.output.open import output_at
    from mission9.results.reader import of_one_result

    root, seconds = of_one_result(output, lambda found: (found.root, write_report(found, found.root / PAGE, input_)))
    file, place = root / PAGE, output_at(output).put_page(root)
    parts = ", ".join(f"{part} {spent:.1f} s" for part, spent in seconds.items())
    say(f"{place}: {file.stat().st_size / 1e6:.1f} MB ({parts})")


@app.command
def project(
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    model: str,
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
        The folder pca_model in an earlier run's output, also s3://BUCKET/PREFIX/pca_model.
    device:
        Device that computes the features.
    engine:
        Engine that computes them.
    """
    from mission9.results.projector import Projector

    projector = Projector(model, device=device, engine=engine)
    failed = 0
    for path in images:
        try:
            print(json.dumps({"path": str(path), "pca": projector(path).tolist()}), flush=True)
        except ImageError as error:
            failed += 1
            print(json.dumps({"path": str(path), "error": error.reason, "message": str(error)}), flush=True)
    return 1 if failed else 0
