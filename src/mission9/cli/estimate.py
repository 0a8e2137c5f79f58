"""The command that predicts the time and cost of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mission9.cli.app import MAKE, app
from mission9.cli.console import say
from mission9.config import RunConfig

if TYPE_CHECKING:
    from mission9.estimate.predict import Prediction


@app.command(group=MAKE)
def estimate(
    *,
    config: RunConfig | None = None,
    images: int | None = None,
    machine: Annotated[list[str] | None, Parameter(negative="")] = None,
    count: int = 1,
    price: Annotated[list[str] | None, Parameter(negative="")] = None,
    save: str | None = None,
) -> None:
    """Predict how long a run takes and what it costs, by a probe of 200 images; takes the options of `mission9 run`.

    It prints a line for this machine and one for each --machine, with bounds: the minutes of the run, the minutes with
    the machines' start, and their price in dollars. docs/how-to/estimate.md explains the assumptions about other
    machines.

    ```bash
    mission9 estimate --input photos --weights demo
    mission9 estimate --input photos --images 100000 --machine g4dn.xlarge --machine c6i.4xlarge --count 3
    mission9 estimate --input photos --machine g4dn.xlarge --price g4dn.xlarge=0.6 --save estimate.json
    ```

    Parameters
    ----------
    config:
        The settings of the run.
    images:
        Number of images of the run; default: all images of the input.
    machine:
        A machine type of Amazon; may be repeated.
    count:
        Number of machines of each type.
    price:
        Your price of a machine, TYPE=USD an hour, in the place of the list's.
    save:
        File to keep the estimate in, for mission9 run --estimate.
    """
    from mission9.errors import ConfigError
    from mission9.estimate.fast import FAST_HINT
    from mission9.estimate.instances import find_instances, note
    from mission9.estimate.predict import file_to_keep, predict_here, predict_there
    from mission9.estimate.predict import save as keep
    from mission9.estimate.probe import describe_rejects, probe

    instances = find_instances(machine or [], price or [])
    if count < 1 or (images is not None and images < 1):
        raise ConfigError("--count and --images: give at least 1")
    file = None if save is None else file_to_keep(save)
    measured = probe(config or RunConfig())
    many = images or measured.images
    found = [predict_here(measured, many), *(predict_there(measured, many, item, count) for item in instances)]
    low, mid, high = (1 / seconds for seconds in reversed(measured.seconds))
    say(
        f"probe: {measured.sampled:,} of {measured.images:,} images on {measured.workers} workers ({measured.device}): "
        f"{mid:.0f} images/s each ({low:.0f} to {high:.0f})"
    )
    if measured.rejected:
        say(f"rejected of these: {describe_rejects(measured.rejected)}; a run lists each in its table of rejects")
    if measured.wants_fast:
        say(f"{measured.large_jpegs:.0%} are large JPEGs: {FAST_HINT}")
    for prediction in found:
        say(_line(prediction, many))
    if instances:
        say(f"{note()} Give yours with --price TYPE=USD.")
    if file is not None:
        keep(file, measured, many, found)
        say(f"kept in {file}: mission9 run --estimate {file}")


def _line(prediction: Prediction, images: int) -> str:
    name = prediction.machine if prediction.count == 1 else f"{prediction.count} x {prediction.machine}"
    run, whole, cost = prediction.run_minutes, prediction.minutes, prediction.cost
    text = f"{name}: {images:,} images in {run.mid:.1f} minutes ({run.low:.1f} to {run.high:.1f})"
    if not cost.high:
        return text
    start = f"{whole.mid:.0f} with the start ({whole.low:.0f} to {whole.high:.0f})"
    return f"{text}, {start}, {cost.mid:.2f} USD ({cost.low:.2f} to {cost.high:.2f})"
