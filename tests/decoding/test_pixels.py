"""The identity of an installation's pixels; versions of Pillow differ in the order of the passes of a resize."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from mission9.config import RunConfig
from mission9.decoding.pixels import check_pixels, pixels_digest
from mission9.errors import SetupError
from mission9.models.resize import native_resize
from mission9.pipeline.run import run
from mission9.runners.base import InProcessRunner


@pytest.fixture
def other_order(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Pillow that takes the vertical pass of a resize first."""
    resize = Image.Image.resize

    def vertical_first(image: Image.Image, size: tuple[int, int], *more: Any) -> Image.Image:
        return resize(resize(image, (image.width, size[1]), *more), size, *more)

    monkeypatch.setattr(Image.Image, "resize", vertical_first)
    for found in (pixels_digest, check_pixels, native_resize):
        found.cache_clear()
    yield
    for found in (pixels_digest, check_pixels, native_resize):
        found.cache_clear()


@pytest.fixture
def digest() -> str:
    return pixels_digest()


def test_it_is_the_same_each_time(digest: str) -> None:
    pixels_digest.cache_clear()
    assert pixels_digest() == digest
    assert len(digest) == 64


@pytest.mark.parametrize("probe", ["portrait.jpg", "landscape.jpg", "small.jpg", "lossy.webp"])
def test_each_probe_counts(probe: str, digest: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {file.name: file.read_bytes() for file in probes().iterdir()}
    assert probe in found
    folder = tmp_path / "decoding" / "probe"
    folder.mkdir(parents=True)
    for name, data in found.items():
        (folder / name).write_bytes(data if name != probe else found["print.jpg"])
    monkeypatch.setattr("mission9.decoding.pixels.files", lambda _: tmp_path)
    pixels_digest.cache_clear()
    assert pixels_digest() != digest
    pixels_digest.cache_clear()


def probes() -> Path:
    return Path(__file__).parents[2] / "src" / "mission9" / "decoding" / "probe"


@pytest.mark.usefixtures("digest", "other_order")
def test_a_worker_of_other_pixels_is_refused(digest: str) -> None:
    with pytest.raises(SetupError, match=r"Pillow .* on .* gives other pixels than that of the driver: install"):
        check_pixels(digest)


def test_features_of_other_pixels_never_mix(tree: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    config = RunConfig(input=str(tree), output=str(tmp_path / "out"), weights="demo", components=3, no_report=True)
    first = run(config, InProcessRunner())
    assert run(config, InProcessRunner()).images_inferred == 0
    request.getfixturevalue("other_order")
    second = run(config, InProcessRunner())
    assert second.images_inferred == first.images_inferred > 0
    assert second.fingerprint != first.fingerprint
    assert pq.read_table(tmp_path / "out" / "features").num_rows == sum(s.featured for s in first.splits.values())
