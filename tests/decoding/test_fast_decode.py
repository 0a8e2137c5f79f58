"""`--decode fast`: large JPEGs at a reduced size, everything else exactly, and a run that says what it costs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mission9.config import RunConfig
from mission9.datasets.demo import VARIETIES, draw
from mission9.decoding.decode import fast_side, open_image, reduce_jpeg
from mission9.decoding.isolated import Decoded, decode_apart
from mission9.decoding.pixels import pixels_digest
from mission9.decoding.protocol import DecoderSettings
from mission9.errors import ConfigError
from mission9.feature_extractor import MobileNetV2Extractor
from mission9.options import Decode, Preprocess
from mission9.pipeline.run import run
from mission9.results.projector import Projector
from mission9.runners.base import InProcessRunner

LARGE = (1500, 1000)


def photograph(size: tuple[int, int] = LARGE, form: str = "JPEG", **options: Any) -> bytes:
    picture = Image.fromarray(draw(VARIETIES[0], stream=0, number=0)).resize(size, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 8, (size[1], size[0], 3))
    buffer = io.BytesIO()
    noisy = (np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data: bytes, decode: Decode, how: Preprocess = "stretch") -> Decoded:
    (found,) = decode_apart([data], DecoderSettings(how, 10**7, decode))
    assert isinstance(found, Decoded)
    return found


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("how", ["stretch", "crop"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_large_jpeg_is_almost_the_same_and_has_its_own_size(how: Preprocess, orientation: int) -> None:
    data = photograph(exif=turned(orientation))
    exact, fast = decoded(data, "exact", how), decoded(data, "fast", how)
    assert (fast.width, fast.height) == (exact.width, exact.height) == (LARGE if orientation < 5 else LARGE[::-1])
    away = np.abs(exact.pixels[..., :3].astype(int) - fast.pixels[..., :3])
    assert 0 < away.mean() < 2  # of 255


@pytest.mark.parametrize(
    "data",
    [photograph((700, 890)), photograph((1500, 890)), photograph(form="PNG"), photograph(form="WEBP")],
    ids=["small", "not high", "png", "webp"],
)
def test_everything_else_is_decoded_exactly(data: bytes) -> None:
    exact, fast = decoded(data, "exact"), decoded(data, "fast")
    np.testing.assert_array_equal(exact.pixels[..., :3], fast.pixels[..., :3])


@pytest.mark.parametrize(("how", "side"), [("stretch", 224), ("crop", 232)])
@pytest.mark.parametrize("size", [(896, 896), (1792, 1000), (5000, 4000), (930, 4000)])
def test_at_least_twice_the_side_of_the_resize_remains(how: Preprocess, side: int, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, "JPEG")
    image = open_image(buffer.getvalue(), max_pixels=10**8)
    reduce_jpeg(image, fast_side(how))
    assert min(image.size) >= 2 * side
    assert min(image.size) < 4 * side


def test_its_pixels_have_an_identity_of_their_own() -> None:
    assert pixels_digest("fast") != pixels_digest("exact") == pixels_digest()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images`, large JPEGs, and the results of an exact and a fast run of them."""
    folder = tmp_path_factory.mktemp("fast")
    for number, label in enumerate("aaabbb"):
        (folder / "images" / label).mkdir(parents=True, exist_ok=True)
        picture = photograph((1500 + number, 1000), quality=80 + number)
        (folder / "images" / label / f"{number}.jpg").write_bytes(picture)
    for decode in ("exact", "fast"):
        run(config(folder, decode), InProcessRunner())
    return folder


def config(folder: Path, decode: str, **more: Any) -> RunConfig:
    places = {"input": str(folder / "images"), "output": str(folder / decode)}
    components = {} if "pca_model" in more else {"components": 2}
    return RunConfig(**places, **components, weights="demo", no_report=True, decode=decode, **more)


def test_a_run_measures_what_it_costs(results: Path) -> None:
    exact, fast = (json.loads((results / name / "run.json").read_text()) for name in ("exact", "fast"))
    assert exact["fidelity"] == {}
    assert fast["fidelity"]["images"] == 6
    assert 0.99 < fast["fidelity"]["cosine_min"] <= fast["fidelity"]["cosine_mean"] < 1
    assert exact["fingerprint"] != fast["fingerprint"]
    sizes = [pq.read_table(results / name / "features").sort_by("path")["width"] for name in ("exact", "fast")]
    assert sizes[0] == sizes[1]
    assert run(config(results, "fast"), InProcessRunner()).images_inferred == 0


def test_a_model_is_of_one_kind_of_features(results: Path) -> None:
    model = str(results / "fast" / "pca_model")
    with pytest.raises(ConfigError, match="fitted on different features: give .* --decode fast, or drop"):
        run(config(results, "exact", pca_model=model), InProcessRunner())
    image = results / "images" / "a" / "0.jpg"
    fast = MobileNetV2Extractor(weights="demo", decode="fast").extract(image)
    projector = Projector(model)
    np.testing.assert_allclose(projector(image), projector.model.transform(fast[np.newaxis])[0], rtol=1e-4, atol=1e-4)
