"""Support for notebooks/mission9.ipynb: settings, pictures to look at, and a map of labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mission9.config import RunConfig
from mission9.datasets.demo import write_sample
from mission9.decoding.isolated import decode_apart
from mission9.decoding.protocol import THUMBNAIL, DecoderSettings
from mission9.errors import ConfigError, ImageError, InputError, OutputError
from mission9.models.preprocess import thumbnail_size
from mission9.options import MAX_BYTES, MAX_PIXELS
from mission9.output.open import output_at
from mission9.privacy.policy import enforce_policy
from mission9.sources import find_root, open_source
from mission9.sources.base import Root
from mission9.sources.list_images import check_links, list_images
from mission9.sources.listing import Listing, ListingCounts
from mission9.storage.location import local_path, real_root

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE = "data/demo/fruits"  # the folder of `mission9 demo` too

# The names in CONFIG that are neither settings in capitals nor environment variables.
_NAMES = {"DATASET_PATH": "input", "OUTPUT_PATH": "output"}

# Labels that a map names: more would make the legend longer than the map, and colours hard to distinguish.
MAX_NAMED = 20
_MARKERS = "o^"
_LONGEST_NAME = 30  # letters of a label in a legend


def read_config(given: Mapping[str, Any]) -> RunConfig:
    """Convert a notebook's CONFIG to the settings of a run; a missing or None value has its default.

    DATASET_PATH and OUTPUT_PATH are the input and the output. Other names are environment variables
    (SPARK_DRIVER_MEMORY), or settings in capitals (BATCH_SIZE). If the dataset is the default and does not exist, this
    function draws the sample in `SAMPLE` and uses it, with the bundled weights unless WEIGHTS names others.

    Raises:
        ConfigError: a setting is unknown, or its value is invalid.
        InputError: DATASET_PATH leads to no images.
        OutputError: the output holds the results of other images, which those of the sample would replace.
    """
    settings = {_setting(name): value for name, value in given.items() if value is not None}
    default = RunConfig.model_fields["input"].default
    config = RunConfig(**settings)
    if os.path.normpath(config.input) == default and not os.path.lexists(default):
        return _on_sample(config, has_weights="weights" in settings)
    folder = local_path(config.input)
    if folder is not None and not folder.exists():
        raise InputError(
            f"there is no folder {os.path.abspath(config.input)}: correct DATASET_PATH, which counts from "
            f"{os.getcwd()}, or get Fruits-360: mission9 fetch"
        )
    _check_images(config)
    return config


def _check_images(config: RunConfig) -> None:
    """Check for images before Spark starts: its workers would report their absence in a long Java stack trace."""
    enforce_policy(config)
    try:
        root, found = find_root(config.input), ListingCounts()
        first = next(list_images(root, found, Listing.of(config)), None)
        check_links(config.input, found)
        if first is None:
            raise InputError(f"there are no images in {config.input}{found.in_brackets()}")
    except InputError as error:
        raise InputError(f"DATASET_PATH leads to no images: {error}") from error


def _setting(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    fields = RunConfig.model_fields
    if name.lower() in fields or name in (field.validation_alias for field in fields.values()):
        return name.lower() if name.lower() in fields else name
    known = [str(field.validation_alias or setting.upper()) for setting, field in fields.items()]
    known = [each for each in known if each not in ("INPUT", "OUTPUT")]
    raise ConfigError(f"CONFIG has no {name}; there are: {', '.join([*_NAMES, *known])}")


def _on_sample(config: RunConfig, *, has_weights: bool) -> RunConfig:
    before = output_at(config.output).last_report()
    of_others = before.get("config", {}).get("input", SAMPLE)
    if real_root(of_others) != real_root(SAMPLE):
        raise OutputError(
            f"{config.output} holds the results of {of_others}, which those of generated photographs would replace: "
            "give DATASET_PATH, or another OUTPUT_PATH"
        )
    count = write_sample(Path(SAMPLE))
    print(f"{config.input} is not there: {count} generated photographs in {SAMPLE} take its place")  # noqa: T201
    return config.model_copy(update={"input": SAMPLE} | ({} if has_weights else {"weights": "demo"}))


class Row(Protocol):
    """A row of a listing: the image `path` below `root`, and its label."""

    @property
    def root(self) -> Any: ...
    @property
    def path(self) -> Any: ...
    @property
    def label(self) -> Any: ...


@dataclass(frozen=True)
class Picture:
    """An image to look at: the bytes of its file, and its thumbnail, (H, W, 3) uint8."""

    path: str
    label: str
    content: bytes
    pixels: NDArray[np.uint8]


def open_pictures(rows: Iterable[Row]) -> list[Picture]:
    """Open images in a folder or a bucket; omit those that cannot be decoded."""
    found = [(row, content) for row in rows if (content := _content(row))]
    decoded = decode_apart([content for _, content in found], DecoderSettings(THUMBNAIL, MAX_PIXELS)) if found else []
    pictures = []
    for (row, content), outcome in zip(found, decoded, strict=True):
        if not isinstance(outcome, ImageError):
            width, height = thumbnail_size(outcome.width, outcome.height)
            pictures.append(Picture(row.path, row.label, content, outcome.pixels[:height, :width, :3].copy()))
    return pictures


def _content(row: Row) -> bytes:
    try:
        return open_source(Root(row.root)).read(row.path, max_bytes=MAX_BYTES)
    except ImageError:
        return b""


def label_map(pca: NDArray[np.float32], labels: NDArray[np.object_]) -> Figure:
    """Draw (N, k) scores by their first two components.

    The map names the largest labels, `MAX_NAMED` at most, each with a colour of its own; all others are light grey.
    From labels of equal size, it chooses some that are evenly spread by name.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    ax = figure.subplots()
    places = np.column_stack([pca[:, 0], pca[:, 1] if pca.shape[1] > 1 else np.zeros(len(pca))])
    largest, others = _largest(Counter(labels))
    # Ten dark colours as circles, then their light ones as triangles: only colours distinguish small points.
    colours = [colormaps["tab20"](number) for number in (*range(0, 20, 2), *range(1, 20, 2))]
    colours[7], colours[17] = (0.0, 0.0, 0.0, 1.0), (0.4, 0.4, 0.4, 1.0)  # instead of greys, the colour of other labels
    size = float(np.clip(20_000 / len(pca), 2, 12))  # points, squared
    drawn, names = [], []
    if others:
        rest = places[~np.isin(labels, largest)]
        drawn.append(ax.scatter(rest[:, 0], rest[:, 1], s=size / 2, color="0.8", marker="."))
        names.append(f"{others} other labels")
    for number, label in enumerate(largest):
        marker, colour = _MARKERS[2 * number // len(colours)], colours[number]
        here = places[labels == label]
        drawn.append(ax.scatter(here[:, 0], here[:, 1], s=size, marker=marker, color=colour, alpha=0.7))
        # The space protects names that begin with an underscore, which matplotlib would omit from the legend.
        names.append(f" {label}" if len(label) <= _LONGEST_NAME else f" {label[:_LONGEST_NAME]}…")
    ax.set(xlabel="component 1", ylabel="component 2" if pca.shape[1] > 1 else "")
    legend = ax.legend(
        drawn, names, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=(20 / size) ** 0.5
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a label may contain dollar signs
    return figure


def _largest(counts: Mapping[str, int]) -> tuple[list[str], int]:
    """The labels that a map names, in order, and the number of the others."""
    if len(counts) <= MAX_NAMED:
        return sorted(counts), 0
    smallest = sorted(counts.values(), reverse=True)[MAX_NAMED - 1]
    larger = [label for label, count in counts.items() if count > smallest]
    alike = sorted(label for label, count in counts.items() if count == smallest)
    chosen = np.linspace(0, len(alike) - 1, MAX_NAMED - len(larger)).astype(int)
    return sorted([*larger, *(alike[place] for place in chosen)]), len(counts) - MAX_NAMED
