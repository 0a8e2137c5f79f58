"""HEIC by pillow-heif and AVIF by Pillow, decoded like the other formats."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, features

from mission9 import RunConfig, run
from mission9.decoding import formats
from mission9.decoding.decode import decode_image, open_image, to_picture
from mission9.decoding.isolated import Decoded, decode_apart
from mission9.decoding.metadata import kinds_of
from mission9.decoding.protocol import DecoderSettings
from mission9.errors import REASONS, ImageError
from mission9.runners.base import InProcessRunner
from tests.support.mutate import blocks_of, fields_of, mutate
from tests.support.seeds import make_seeds

needs_heif = pytest.mark.skipif(
    find_spec("pillow_heif") is None, reason="pillow-heif is not installed: pip install 'mission9[heic]'"
)

LIMIT = 1_000_000
KINDS = (pytest.param("HEIF", marks=needs_heif), "AVIF")
APART = DecoderSettings("stretch", 12_000_000)

formats.load_decoders()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    fast = {"speed": 10} if kind == "AVIF" else {"enc_params": {"preset": "ultrafast"}}
    image.save(buffer, kind, **(fast | {"quality": 95} | options))
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode_image(data, max_pixels=LIMIT)
    assert image.mode == "RGB"
    return np.asarray(image)


def error(data: bytes, limit: int = LIMIT) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, max_pixels=limit)
    return caught.value


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.fixture
def scene() -> Image.Image:
    """A picture, wider than high, of which no turn is like another."""
    pixels = np.full((80, 120, 3), 200, np.uint8)
    pixels[:40, :60], pixels[40:, :60], pixels[:40, 60:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_is_that_of_the_encoder(kind: str, scene: Image.Image) -> None:
    assert difference(decoded(encoded(scene, kind)), np.asarray(scene)) < 4
    grey = scene.convert("L")
    assert difference(decoded(encoded(grey, kind)), np.asarray(grey.convert("RGB"))) < 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_once(kind: str, orientation: int, scene: Image.Image) -> None:
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = scene.transpose(Image.Transpose(turn[orientation])) if orientation in turn else scene
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert difference(decoded(encoded(stored, kind, exif=exif.tobytes())), np.asarray(scene)) < 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_container_and_not_its_metadata_says_how_to_turn_a_picture(kind: str, scene: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "mission9"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="1"/>'
    with_exif, with_xmp = encoded(scene, kind, exif=exif.tobytes()), encoded(scene, kind, xmp=xmp)
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00"
    assert kind == "AVIF" or entry + b"\x01" in with_exif  # Pillow writes none into AVIF's EXIF data
    lying = with_exif.replace(entry + b"\x01", entry + b"\x06"), with_xmp.replace(b'="1"', b'="6"')
    for data in lying:
        assert difference(decoded(data), np.asarray(scene)) < 4


@pytest.mark.parametrize("kind", KINDS)
def test_transparency_lies_over_white(kind: str, scene: Image.Image) -> None:
    scene.putalpha(255)
    scene.paste((9, 99, 199, 0), (60, 0, 120, 80))
    found = decoded(encoded(scene, kind))
    assert difference(found[:, 64:], np.full((80, 56, 3), 255)) < 2
    assert difference(found[:40, :56], np.full((40, 56, 3), (250, 0, 0))) < 6
    scene.putalpha(0)
    assert error(encoded(scene, kind)).reason == "transparent"


@needs_heif
def test_10_bits_become_8(scene: Image.Image) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    deep = (np.asarray(scene).astype(np.uint16) * 257).tobytes()
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", scene.size, deep).save(buffer, quality=95)
    assert open_image(buffer.getvalue(), max_pixels=LIMIT).info["bit_depth"] == 10
    assert difference(decoded(buffer.getvalue()), np.asarray(scene)) < 4
    ramp = Image.fromarray(np.tile(np.linspace(0, 65535, 128).astype(np.uint16), (64, 1)))
    assert difference(decoded(encoded(ramp, "HEIF"))[0, :, 0], np.linspace(0, 255, 128)) < 4


@needs_heif
def test_a_grid_of_tiles_is_one_picture(scene: Image.Image) -> None:
    large = scene.resize((600, 400))
    data = encoded(large, "HEIF", tile_size=256)
    assert open_image(data, max_pixels=LIMIT).info["tiling"]["num_columns"] == 3
    assert difference(decoded(data), np.asarray(large)) < 4


@needs_heif
def test_the_primary_picture_of_several_is_taken(scene: Image.Image) -> None:
    others = [Image.new("RGB", (64, 64), "blue"), Image.new("RGB", (32, 200), "red")]
    data = encoded(others[0], "HEIF", save_all=True, append_images=[scene, others[1]], primary_index=1)
    assert difference(decoded(data), np.asarray(scene)) < 4


def test_a_sequence_gives_its_first_picture(scene: Image.Image) -> None:
    data = encoded(scene, "AVIF", save_all=True, append_images=[Image.new("RGB", scene.size, "blue")])
    assert data[8:12] == b"avis"
    assert difference(decoded(data), np.asarray(scene)) < 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_general_brand_leaves_the_choice_to_the_others(kind: str, scene: Image.Image) -> None:
    data = encoded(scene, kind)
    general = data[:8] + b"mif1" + data[12:]
    assert difference(decoded(general), np.asarray(scene)) < 4


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_too_many_pixels_are_refused_by_the_header_alone(kind: str, scene: Image.Image) -> None:
    data = encoded(scene, kind)
    assert error(data, limit=80 * 120 - 1).reason == "too_many_pixels"
    at = data.index(b"ispe") + 8
    for side in (3000, 12_000, 16_000):
        assert error(data[:at] + side.to_bytes(4) * 2 + data[at + 8 :]).reason == "too_many_pixels"


def test_more_pixels_than_declared_are_damage(scene: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    image = open_image(encoded(scene, "AVIF"), max_pixels=LIMIT)

    def load() -> None:
        image._size = (1200, 800)

    monkeypatch.setattr(image, "load", load)
    with pytest.raises(ImageError, match="it has 1200 x 800 pixels, not 120 x 80"):
        to_picture(image)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_picture_is_never_half_a_picture(kind: str, scene: Image.Image) -> None:
    data = encoded(scene, kind)
    for length in range(20, len(data), 11):
        assert error(data[:length]).reason == "truncated", length


@pytest.mark.parametrize("kind", KINDS)
def test_damage_has_its_reason(kind: str, scene: Image.Image) -> None:
    data = bytearray(encoded(scene, kind))
    at = data.index(b"mdat") + 8
    data[at : at + 60] = bytes(60)
    assert error(bytes(data)).reason == "corrupt"
    assert error(bytes(data).replace(b"ispe", b"none")).reason == "corrupt"


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_are_a_picture_or_rejected_for_a_reason(kind: str) -> None:
    seeds = [seed.data for seed in make_seeds() if seed.kind == kind]
    chance = np.random.default_rng(7)
    images = [mutate(chance, seeds[number % len(seeds)], seeds[-1]) for number in range(32)]
    for outcome in decode_apart(images, APART):
        assert isinstance(outcome, Decoded) or outcome.reason in REASONS
        assert not isinstance(outcome, ImageError) or outcome.reason != "decoder_crashed"


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_limit_suffices_for_12_megapixels(kind: str, scene: Image.Image) -> None:
    # A limit of as many pixels as the picture has is the narrowest. Noise would take minutes to encode.
    (outcome,) = decode_apart([encoded(scene.resize((4000, 3000)), kind, quality=60)], APART)
    assert isinstance(outcome, Decoded), outcome
    assert (outcome.width, outcome.height) == (4000, 3000)


@needs_heif
def test_a_decoder_process_decodes_both_and_this_one_need_not(scene: Image.Image) -> None:
    outcomes = decode_apart([encoded(scene, kind) for kind in ("HEIF", "AVIF")], APART)
    assert [(found.width, found.height) for found in outcomes if isinstance(found, Decoded)] == [(120, 80)] * 2
    code = "import sys, mission9.decoding.decode, mission9.stages.reuse; print('pillow_heif' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


def test_without_its_decoder_a_format_is_unsupported_and_the_error_says_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heic, avif = (b"\0\0\0\x14ftyp" + brand + b"\0\0\0\0mif1" for brand in (b"heic", b"avif"))
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    assert error(heic).reason == "unsupported_format"
    assert "HEIC is not supported: pip install 'mission9[heic]'" in str(error(heic))
    assert error(heic[:8] + b"mif1" + heic[12:]).reason == "unsupported_format"
    assert error(heic[:8] + b"isom" + heic[12:]).reason == "not_an_image"  # a video
    monkeypatch.setattr(features, "check", lambda _: False)
    assert error(avif).reason == "unsupported_format"
    assert str(error(avif)).startswith("AVIF is not supported: install a wheel of Pillow")


@pytest.mark.parametrize("kind", KINDS)
def test_the_fuzzer_knows_the_formats(kind: str) -> None:
    for seed in (seed for seed in make_seeds() if seed.kind == kind):
        decode_image(seed.data, max_pixels=LIMIT)
        assert len(list(fields_of(seed.data))) > 50
        assert len(list(blocks_of(seed.data))) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_is_found_and_an_orientation_alone_is_none(kind: str, scene: Image.Image) -> None:
    assert kinds_of(encoded(scene, kind)) == set()
    exif = Image.Exif()
    exif[0x010F] = "mission9"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    assert kinds_of(encoded(scene, kind, exif=exif, xmp=xmp)) == {"exif", "xmp"}
    exif = Image.Exif()
    exif[0x0112] = 6
    if kind == "AVIF":  # whose encoder writes it into the container
        assert kinds_of(encoded(scene, kind, exif=exif)) == set()


@needs_heif
def test_a_second_run_tries_again_just_what_the_first_lacked_a_decoder_for(scene: Image.Image, tmp_path: Path) -> None:
    lacking, folder = tmp_path / "lacking", tmp_path / "images" / "a"
    lacking.mkdir()
    (lacking / "sitecustomize.py").write_text("import sys; sys.modules['pillow_heif'] = None")
    folder.mkdir(parents=True)
    for number in range(3):
        scene.rotate(number).save(folder / f"{number}.jpg")
        (folder / f"{number}.heic").write_bytes(encoded(scene.rotate(number), "HEIF"))
    (folder / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    settings = {"input": str(tmp_path / "images"), "output": str(tmp_path / "out"), "weights": "demo", "components": 2}
    command = [sys.executable, "-P", "-m", "mission9", "run", "--runner", "local", "--workers", "1", "--no-report"]
    command += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    path = os.pathsep.join([str(lacking), *filter(None, [os.environ.get("PYTHONPATH")])])
    first = subprocess.run(
        [*command, "--max-reject-rate", "0.9"], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert first.returncode == 0, first.stderr
    messages = pq.read_table(tmp_path / "out" / "rejects")["message"].to_pylist()
    assert sum("pip install 'mission9[heic]'" in message for message in messages) == 3
    config = RunConfig(**settings, max_reject_rate=0.9, no_report=True)
    assert run(config, InProcessRunner()).images_inferred == 3
    assert pq.read_table(tmp_path / "out" / "rejects")["path"].to_pylist() == ["a/page.eps"]
    assert run(config, InProcessRunner()).images_inferred == 0
