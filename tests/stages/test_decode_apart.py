from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mission9.errors import ImageError
from mission9.preprocess import to_input
from mission9.stages import decode_apart as apart
from mission9.stages.decode_apart import TIME_LIMIT, DecoderSettings, decode_apart
from mission9.stages.decode_image import decode_image

# A decoder that misbehaves in C where an image's comment tells it to; children load it when they start.
MISBEHAVING = """
import ctypes, os, sys
from PIL import JpegImagePlugin

load = JpegImagePlugin.JpegImageFile.load

def misbehave(image):
    what = image.info.get("comment", b"")
    if what == b"segfault":
        ctypes.string_at(0)
    if what == b"abort":
        os.write(2, b"libjpeg: this cannot go on")
        os.abort()
    if what == b"hang":
        ctypes.PyDLL(None).pause()  # in C, without letting go of the interpreter
    if what == b"eat":
        hoard = []
        while True:
            hoard.append(bytearray(1 << 26))
    return load(image)

JpegImagePlugin.JpegImageFile.load = misbehave
"""


@pytest.fixture
def poison(tmp_path: Path) -> Callable[[str], bytes]:
    def make(what: str) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (50, 40), (200, 30, 10)).save(buffer, "JPEG", comment=what.encode())
        return buffer.getvalue()

    return make


@pytest.fixture
def misbehaving(tmp_path: Path) -> Path:
    folder = tmp_path / "misbehaving"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(MISBEHAVING)
    return folder


@pytest.fixture
def settings(misbehaving: Path, monkeypatch: pytest.MonkeyPatch) -> DecoderSettings:
    monkeypatch.setenv("PYTHONPATH", str(misbehaving))
    # Other limits than elsewhere, so that the children are new ones.
    return DecoderSettings("stretch", 1_000_000 + len(str(misbehaving)))


def reason(data: bytes, settings: DecoderSettings) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_apart(data, settings)
    return caught.value


def test_pixels_and_reasons_are_those_of_decoding_here(pictures: list[bytes]) -> None:
    settings = DecoderSettings("crop", 1_000_000)
    found = [decode_apart(data, settings) for data in pictures]
    for data, decoded in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(decoded.pixels[..., :3], to_input(decode_image(data, max_pixels=10**6), "crop")[..., :3])
        assert (decoded.width, decoded.height) == (100, 100)
    assert reason(b"", settings).reason == "empty"
    assert reason(b"no image", settings).reason == "not_an_image"
    assert reason(pictures[0][:500], settings).reason == "truncated"


def test_a_decoder_that_misbehaves_costs_its_image_alone(
    settings: DecoderSettings, poison: Callable[[str], bytes], pictures: list[bytes]
) -> None:
    for what, wanted, words in (
        ("segfault", "decoder_crashed", "Segmentation fault"),
        ("abort", "decoder_crashed", "libjpeg: this cannot go on"),
        ("eat", "out_of_memory", "too much"),
    ):
        error = reason(poison(what), settings)
        assert (error.reason, words in str(error)) == (wanted, True), str(error)
        assert decode_apart(pictures[0], settings).pixels.any()


def test_a_decoder_that_never_returns_costs_one_time_limit(
    settings: DecoderSettings, poison: Callable[[str], bytes], pictures: list[bytes]
) -> None:
    start = time.monotonic()
    assert reason(poison("hang"), settings).reason == "timeout"
    assert TIME_LIMIT <= time.monotonic() - start < TIME_LIMIT + 2
    assert decode_apart(pictures[0], settings).pixels.any()


@pytest.mark.slow
def test_a_stopped_child_is_noticed(settings: DecoderSettings, pictures: list[bytes]) -> None:
    decode_apart(pictures[0], settings)
    (child,) = (p for p in psutil.Process().children() if str(settings.max_pixels) in p.cmdline())
    child.send_signal(signal.SIGSTOP)
    assert reason(pictures[0], settings).reason == "timeout"
    assert decode_apart(pictures[0], settings).pixels.any()


def test_large_pictures_take_turns(settings: DecoderSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("L", (5000, 4000), 7).save(buffer, "PNG")
    with apart._large:
        large = DecoderSettings("stretch", 30_000_000)
        assert isinstance(decode_apart(_small(), large), apart.Decoded)
    assert decode_apart(buffer.getvalue(), large).width == 5000


def _small() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (50, 40), 7).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["spark", "local", "auto"])
def test_poisonous_images_cost_a_run_nothing_but_themselves(
    runner: str, misbehaving: Path, poison: Callable[[str], bytes], pictures: list[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    for n in range(40):
        (folder / f"{n}.jpg").write_bytes(pictures[n % 10])
    wanted = {"segfault": "decoder_crashed", "abort": "decoder_crashed", "eat": "out_of_memory", "hang": "timeout"}
    for what in wanted:
        (folder / f"{what}.jpg").write_bytes(poison(what))
    options = ["--input", str(folder.parent), "--output", str(tmp_path / "results"), "--weights", "demo"]
    options += ["--components", "5", "--runner", runner, "--max-reject-rate", "0.2"]
    subprocess.run(
        [sys.executable, "-m", "mission9", "run", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(misbehaving), os.environ.get("PYTHONPATH", "")])},
        check=True,
        capture_output=True,
        timeout=180,
    )
    rejects = pq.read_table(tmp_path / "results" / "rejects").to_pylist()
    assert {Path(row["path"]).stem: row["reason"] for row in rejects} == wanted
    assert len(pq.read_table(tmp_path / "results" / "features")) == 40
