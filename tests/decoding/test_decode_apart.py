from __future__ import annotations

import fcntl
import io
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mission9 import RunConfig, run
from mission9.concurrency.watchdog import is_stopped
from mission9.decoding.decode import decode_image
from mission9.decoding.decoder_process import turns_file
from mission9.decoding.isolated import Decoded, decode_apart
from mission9.decoding.protocol import THUMBNAIL, TIME_LIMIT, DecoderSettings
from mission9.errors import ImageError
from mission9.models.preprocess import thumbnail_size, to_input, to_thumbnail
from mission9.runners.base import InProcessRunner

# Decoders that misbehave in C where an image's comment tells them to; children load them when they start. The time of
# an image which hangs, or is long work, runs ten times as fast, which is noted; no other image's does, since on a
# machine that is busy those may take theirs.
MISBEHAVING = """
import ctypes, os, signal, sys, time
import simplejpeg
from PIL import JpegImagePlugin

load, decode_jpeg = JpegImagePlugin.JpegImageFile.load, simplejpeg.decode_jpeg

def hurry():
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    with open(os.environ["HURRIED"], "a") as file:
        file.write(f"{left}\\n")
    signal.setitimer(signal.ITIMER_REAL, left / 10)

def misbehave(image):
    what = image.info.get("comment", b"")
    if what == b"segfault":
        ctypes.string_at(0)
    if what == b"abort":
        os.write(2, b"libjpeg: this cannot go on")
        os.abort()
    if what == b"shout":
        os.write(2, b"\\x1b[2Jall is well\\rall is well\\x07")
        os.abort()
    if what == b"hang":
        hurry()
        ctypes.PyDLL(None).pause()  # in C, without letting go of the interpreter
    if what == b"slow" and not os.path.exists(os.environ["BEGUN"]):
        open(os.environ["BEGUN"], "w").close()
        while True:
            time.sleep(1)
    if what == b"eat":
        import numpy
        hoard = []
        while True:  # of memory that is never touched: to fill gigabytes takes its time on a busy machine
            hoard.append(numpy.empty(1 << 26, numpy.uint8))
    return load(image)

def decode(data, *more, **options):
    if simplejpeg.decode_jpeg_header(data)[1] == 7000:
        hurry()
    return decode_jpeg(data, *more, **options)

JpegImagePlugin.JpegImageFile.load, simplejpeg.decode_jpeg = misbehave, decode
"""


_unlike = itertools.count()


@pytest.fixture
def poison(tmp_path: Path) -> Callable[[str], bytes]:
    def make(what: str) -> bytes:
        upside_down, buffer = Image.Exif(), io.BytesIO()
        upside_down[0x0112] = 3  # so that Pillow decodes it
        picture = Image.new("RGB", (50, 40), (200, 30, 10))
        picture.save(buffer, "JPEG", comment=what.encode(), exif=upside_down)
        return buffer.getvalue()

    return make


@pytest.fixture
def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seconds that were left to each image whose time was made to run faster, a line each."""
    monkeypatch.setenv("HURRIED", str(tmp_path / "hurried"))
    return tmp_path / "hurried"


@pytest.fixture
def misbehaving(tmp_path: Path, hurried: Path) -> Path:
    folder = tmp_path / "misbehaving"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(MISBEHAVING)
    return folder


@pytest.fixture
def settings(misbehaving: Path, monkeypatch: pytest.MonkeyPatch) -> DecoderSettings:
    monkeypatch.setenv("PYTHONPATH", str(misbehaving))
    # Other limits than elsewhere, so that the children are new ones.
    return DecoderSettings("stretch", 1_000_000 + next(_unlike))


def reason(data: bytes, settings: DecoderSettings) -> ImageError:
    (outcome,) = decode_apart([data], settings)
    assert isinstance(outcome, ImageError)
    return outcome


def good(outcomes: list[Decoded | ImageError]) -> list[Decoded]:
    found = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
    assert len(found) == len(outcomes), outcomes
    return found


def test_pixels_and_reasons_are_those_of_decoding_here(pictures: list[bytes]) -> None:
    settings = DecoderSettings("crop", 1_000_000)
    for data, decoded in zip(pictures, good(decode_apart(pictures, settings)), strict=True):
        np.testing.assert_array_equal(
            decoded.pixels[..., :3], to_input(decode_image(data, max_pixels=10**6), "crop")[..., :3]
        )
        assert (decoded.width, decoded.height) == (100, 100)
    assert reason(b"", settings).reason == "empty"
    assert reason(b"no image", settings).reason == "not_an_image"
    assert reason(pictures[0][:500], settings).reason == "truncated"


def test_thumbnails_are_those_of_decoding_here(pictures: list[bytes]) -> None:
    wide = io.BytesIO()
    Image.open(io.BytesIO(pictures[0])).resize((2000, 500)).save(wide, "JPEG")
    found = decode_apart([*pictures, b"no image", wide.getvalue()], DecoderSettings(THUMBNAIL, 10**6))
    for one, content in zip(found, pictures, strict=False):
        assert isinstance(one, Decoded)
        picture = decode_image(content, max_pixels=10**6)
        pixels = to_thumbnail(picture, picture.size)
        assert thumbnail_size(one.width, one.height) == (pixels.shape[1], pixels.shape[0])
        np.testing.assert_array_equal(one.pixels[: pixels.shape[0], : pixels.shape[1], :3], pixels[..., :3])
    assert isinstance(found[-2], ImageError)
    large = found[-1]  # decoded at an eighth, which shows the same
    assert isinstance(large, Decoded)
    assert thumbnail_size(large.width, large.height) == (64, 16)
    with Image.open(wide) as image:
        away = large.pixels[:16, :, :3].astype(float) - np.asarray(image.resize((64, 16), Image.Resampling.BOX))
    assert np.abs(away).mean() < 6


def test_a_decoder_that_misbehaves_costs_its_image_alone(
    settings: DecoderSettings, poison: Callable[[str], bytes], pictures: list[bytes]
) -> None:
    right = good(decode_apart(pictures, settings))
    what = {"segfault": "Segmentation fault", "abort": "libjpeg: this cannot go on", "eat": "the memory limit"}
    images = [
        pictures[0],
        poison("segfault"),
        pictures[1],
        poison("abort"),
        poison("abort"),
        poison("eat"),
        pictures[2],
    ]
    outcomes = decode_apart(images, settings)
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, ImageError)]
    assert reasons == ["decoder_crashed", "decoder_crashed", "decoder_crashed", "out_of_memory"]
    for at, words in ((1, what["segfault"]), (3, what["abort"]), (4, what["abort"]), (5, what["eat"])):
        assert words in str(outcomes[at])
    for at, decoded in zip((0, 1, 2), good([outcomes[0], outcomes[2], outcomes[6]]), strict=True):
        np.testing.assert_array_equal(decoded.pixels[..., :3], right[at].pixels[..., :3])


def test_last_words_are_plain_text_on_one_line(settings: DecoderSettings, poison: Callable[[str], bytes]) -> None:
    said = str(reason(poison("shout"), settings))
    assert r"(\x1b[2Jall is well\rall is well\x07)" in said
    assert said.isprintable()


def assert_one_time_limit(hurried: Path) -> None:
    """One image's time ran out, once, and it had no more than it may have."""
    (left,) = map(float, hurried.read_text().split())
    assert 0 < left <= TIME_LIMIT


def test_a_decoder_that_never_returns_costs_one_time_limit(
    settings: DecoderSettings, poison: Callable[[str], bytes], pictures: list[bytes], hurried: Path
) -> None:
    outcomes = decode_apart([*pictures, poison("hang"), *pictures], settings)
    good(outcomes[:10] + outcomes[11:])
    assert isinstance(outcomes[10], ImageError)
    assert outcomes[10].reason == "timeout"
    assert_one_time_limit(hurried)


def test_a_small_file_that_is_long_work_costs_one_time_limit(
    settings: DecoderSettings, pictures: list[bytes], hurried: Path
) -> None:
    buffer = io.BytesIO()
    Image.new("L", (7000, 7000), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data.rfind(b"\xff\xda")
    bomb = data[:scan] + data[scan:-2] * 4000 + data[-2:]  # the last scan again and again, over 49 megapixels
    assert len(bomb) < 1_000_000
    settings = DecoderSettings("stretch", 49 * settings.max_pixels)
    outcomes = decode_apart([pictures[0], bomb, pictures[1]], settings)
    good([outcomes[0], outcomes[2]])
    assert isinstance(outcomes[1], ImageError)
    assert outcomes[1].reason == "timeout"
    assert_one_time_limit(hurried)


@pytest.mark.parametrize("more", [0, 1 << 23], ids=["small", "more than a pipe holds"])
def test_a_stopped_child_is_noticed(
    more: int, settings: DecoderSettings, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    good(decode_apart(pictures, settings))
    (child,) = (p for p in psutil.Process().children() if str(settings.max_pixels) in p.cmdline())
    looks: list[float] = []

    def look(reading: list[Any], writing: list[Any], other: list[Any], seconds: float) -> tuple[list[Any], ...]:
        """As select does, but that no time goes by while the child is stopped: of that there is none to spare."""
        if any(ready := select.select(reading, writing, other, 0)) or not is_stopped(child.pid):
            return ready if any(ready) else select.select(reading, writing, other, seconds)
        looks.append(seconds)
        return [], [], []

    child.send_signal(signal.SIGSTOP)
    monkeypatch.setattr("mission9.decoding.decoder_process.select", SimpleNamespace(select=look))
    # Nor does any go by beside that: on a busy machine this process might be thought to have been stopped as well.
    monkeypatch.setattr("mission9.decoding.decoder_process.time", SimpleNamespace(monotonic=lambda: sum(looks)))
    outcomes = decode_apart([pictures[0] + bytes(more), *pictures[1:3]], settings)
    assert TIME_LIMIT < sum(looks) < 2 * TIME_LIMIT
    assert isinstance(outcomes[0], ImageError)
    assert outcomes[0].reason == "timeout"
    good(outcomes[1:])


def test_time_that_all_is_stopped_for_is_not_the_images(
    misbehaving: Path, poison: Callable[[str], bytes], tmp_path: Path
) -> None:
    (tmp_path / "slow.jpg").write_bytes(poison("slow"))
    script = """
import sys
from pathlib import Path
from mission9.decoding import decoder_process, isolated
from mission9.decoding.protocol import DecoderSettings
decoder_process.LOOK = 0.1  # seconds, of which a stop takes more than two
print(isolated.decode_apart([Path(sys.argv[1]).read_bytes()], DecoderSettings("stretch", 10**6))[0].width)
"""
    python_path = os.pathsep.join([str(misbehaving), *sys.path])
    command = [sys.executable, "-c", script, str(tmp_path / "slow.jpg")]
    environment = os.environ | {"PYTHONPATH": python_path, "BEGUN": str(tmp_path / "begun")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.02)
        (child,) = psutil.Process(process.pid).children()
        os.killpg(process.pid, signal.SIGSTOP)  # as Ctrl-Z does
        time.sleep(0.5)
        child.send_signal(signal.SIGALRM)  # as if its time had gone by meanwhile
        os.killpg(process.pid, signal.SIGCONT)
        assert process.communicate()[0] == b"50\n"
        assert not child.is_running()


def test_an_answer_that_nobody_waited_for_is_not_the_next_images(
    settings: DecoderSettings, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = good(decode_apart(pictures[:2], settings))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mission9.decoding.decoder_process.select.select", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decode_apart([pictures[0]], settings)
    np.testing.assert_array_equal(good(decode_apart([pictures[1]], settings))[0].pixels, right[1].pixels)


def test_a_child_that_the_system_killed_is_no_verdict_on_its_image(
    settings: DecoderSettings, pictures: list[bytes]
) -> None:
    good(decode_apart(pictures, settings))
    (child,) = (p for p in psutil.Process().children() if str(settings.max_pixels) in p.cmdline())
    child.kill()
    good(decode_apart(pictures, settings))


def test_that_no_child_comes_up_is_no_verdict_on_an_image(
    settings: DecoderSettings, misbehaving: Path, pictures: list[bytes]
) -> None:
    (misbehaving / "sitecustomize.py").write_text("import os; os.write(2, b'no Pillow here'); os._exit(1)")
    with pytest.raises(RuntimeError, match="the decoder process does not start .no Pillow here"):
        decode_apart(pictures, settings)


def test_what_libraries_say_of_damaged_pictures_does_not_fill_the_disk(settings: DecoderSettings) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (200, 64)).astype(bool)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "TIFF", compression="group4")
    damaged = bytearray(buffer.getvalue())
    damaged[300:310] = b"0123456789"  # libtiff has a word for each line
    good(decode_apart([_png((4, 4))], settings))
    (child,) = (p for p in psutil.Process().children() if str(settings.max_pixels) in p.cmdline())
    assert 0 < child.rlimit(psutil.RLIMIT_FSIZE)[0] < 10_000_000
    decode_apart([bytes(damaged)] * 8, settings)
    words = Path(f"/proc/{child.pid}/fd/2")
    assert words.stat().st_size == 0


def test_large_pictures_take_turns(settings: DecoderSettings) -> None:
    large, small = (_png(size) for size in ((5000, 4000), (50, 40)))
    settings = DecoderSettings("stretch", 30_000_000)
    with Path(f"/proc/self/fd/{turns_file(os.getpid())}").open("rb") as turns, ThreadPoolExecutor(1) as pool:
        fcntl.flock(turns, fcntl.LOCK_EX)
        waiting = pool.submit(decode_apart, [large], settings)
        good(decode_apart([small], settings))
        assert not waiting.done()
        fcntl.flock(turns, fcntl.LOCK_UN)
        assert good(waiting.result())[0].width == 5000


def _png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, 7).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "runner",
    [
        pytest.param("spark", marks=[pytest.mark.slow, pytest.mark.spark]),
        pytest.param("local", marks=pytest.mark.slow),
        "in this process",
    ],
)
def test_poisonous_images_cost_a_run_nothing_but_themselves(
    runner: str,
    misbehaving: Path,
    poison: Callable[[str], bytes],
    pictures: list[bytes],
    tmp_path: Path,
    hurried: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    for n in range(20):
        (folder / f"{n}.jpg").write_bytes(pictures[n % 10])
    wanted = {"segfault": "decoder_crashed", "abort": "decoder_crashed", "eat": "out_of_memory", "hang": "timeout"}
    for what in wanted:
        (folder / f"{what}.jpg").write_bytes(poison(what))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(misbehaving), os.environ.get("PYTHONPATH", "")]))
    places = {"input": str(folder.parent), "output": str(tmp_path / "results")}
    if runner == "in this process":
        limits = {"max_reject_rate": 0.2, "max_pixels": 1_000_000 + next(_unlike)}
        run(RunConfig(**places, **limits, weights="demo", components=5, no_report=True), InProcessRunner())
    else:
        options = ["--components", "5", "--runner", runner, "--max-reject-rate", "0.2", "--weights", "demo"]
        options += [word for name, place in places.items() for word in (f"--{name}", place)]
        command = [sys.executable, "-m", "mission9", "run", *options, "--no-report"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    rejects = pq.read_table(tmp_path / "results" / "rejects").to_pylist()
    assert {Path(row["path"]).stem: row["reason"] for row in rejects} == wanted
    assert len(pq.read_table(tmp_path / "results" / "features")) == 20
    assert_one_time_limit(hurried)
