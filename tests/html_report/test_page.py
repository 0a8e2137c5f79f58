"""The file itself: whole, closed to everything else, of bounded size, and without anything but pixels of the images."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from numpy.typing import NDArray
from PIL import ExifTags, Image

from mission9.cli import main
from mission9.decoding.feeder import Prepared
from mission9.errors import SetupError
from mission9.html_report import write_report, write_report_if_possible
from mission9.html_report.render import to_script
from mission9.models.engines.base import Images
from mission9.models.extraction import Extraction
from mission9.output.layout import PAGE
from mission9.results.reader import Results
from mission9.schema import FEATURES
from mission9.sources import open_source
from mission9.stages import infer_features
from mission9.stages.prepare_images import ImageRow, PreparedBatch
from tests.html_report.conftest import FILES, LABELS, TEST, TRAINING, results_of
from tests.test_imports import modules_after

SECRET = b"taken at 48.8584 N 2.2945 E"


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


def page_of(results: Results, folder: Path, images: str | None = None) -> str:
    write_report(results, folder / PAGE, images)
    return (folder / PAGE).read_text()


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def sizes_of(data: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data["sizes"]), np.uint8).reshape(-1, 2)


def sheets_of(data: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(sheet))) for sheet in data["sheets"]]


def test_the_page_tells_what_the_run_did(results: Results, tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page_of(results, tmp_path).partition("<script")[0]))
    for words in (
        f"images with features {TRAINING + TEST}",
        "rejected 1",
        "Test/Lime/no image.jpg not an image",
        f"{TEST} images of Test, each classified by its nearest neighbour among {TRAINING} of Training",
        "1 times in several splits",
        "Test/Lime/leak.jpg Training/Lemon/3_100.jpg",
        "weights demo",
        "extract",
    ):
        assert words in text


def test_names_and_labels_are_text(hostile: Results, tmp_path: Path) -> None:
    page = page_of(hostile, tmp_path)
    before = page.partition('<script type="application/json"')[0]
    assert not re.search(r"<(script|img|svg onload|td><)", before)
    for label in LABELS:
        assert str(escape(label)) in before
    data = data_of(page)
    assert set(data["labels"]) == set(LABELS)
    assert {rf"{LABELS[2]}/new\nline.jpg", rf"{LABELS[2]}/\u202egnp.exe.jpg"} <= set(data["paths"])
    assert len(data["paths"]) == len(LABELS) * len(FILES)
    assert not set("\x07\u202e") & set(before + json.dumps(data, ensure_ascii=False))


def test_no_text_ends_the_data() -> None:
    hostile = {"a": ["</script><script>alert(1)</script>", "<!--", "]]>", "é\u2028"]}
    assert not set("<>&") & set(to_script(hostile))
    assert json.loads(to_script(hostile)) == hostile


def test_the_policy_allows_these_scripts_and_nothing_from_elsewhere(results: Results, tmp_path: Path) -> None:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page_of(results, tmp_path))
    assert found is not None
    policy = dict(part.split(" ", 1) for part in html.unescape(found[1]).split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data: blob:"
    for what in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[\w+/]{43}=' 'sha256-[\w+/]{43}='", policy[what])


def test_thumbnails_are_of_their_images_in_their_own_shape(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for label, colour, size in (("a", "red", (300, 100)), ("b", "blue", (50, 200)), ("c", "lime", (80, 80))):
        (images / label).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", size, colour).save(images / label / f"{number}.png", compress_level=number)
    data = data_of(page_of(results_of(images, tmp_path / "out", components=2), tmp_path))
    assert sizes_of(data).tolist() == [[64, 21]] * 2 + [[16, 64]] * 2 + [[64, 64]] * 2
    (sheet,) = sheets_of(data)
    pixels = np.asarray(sheet, np.int64)
    for place, wanted in enumerate([(255, 0, 0)] * 2 + [(0, 0, 255)] * 2 + [(0, 255, 0)] * 2):
        assert np.abs(pixels[5, 64 * place + 5] - wanted).max() < 12


def test_nothing_of_an_image_but_its_pixels_gets_in(tree: Path, tmp_path: Path) -> None:
    for file in tree.rglob("*.jpg"):
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = SECRET.decode()
        exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 51.0, 30.0)
        with Image.open(file) as picture:
            picture.save(file, exif=exif, comment=SECRET)
        assert SECRET in file.read_bytes()
    data = data_of(page_of(results_of(tree, tmp_path / "out", components=2), tmp_path))
    assert sizes_of(data).all()
    for sheet in sheets_of(data):
        assert not sheet.getexif()
        assert "comment" not in sheet.info
        assert SECRET not in base64.b64decode(data["sheets"][0])


def test_an_image_that_is_gone_or_another_one_has_no_thumbnail(few: Results, tree: Path, tmp_path: Path) -> None:
    (tree / "Training" / "a" / "0.jpg").unlink()
    file = tree / "Training" / "a" / "1.jpg"
    file.write_bytes(jpeg(Image.new("L", (8, 8))).ljust(file.stat().st_size, b" "))  # as long, and another picture
    page = page_of(few, tmp_path, str(tree))
    data = data_of(page)
    absent = [path for path, size in zip(data["paths"], sizes_of(data), strict=True) if not size.any()]
    assert absent == ["Training/a/0.jpg", "Training/a/1.jpg"]
    assert "2 images have no thumbnail, since their files are gone or changed." in page


def test_large_images_go_without_thumbnails_and_the_page_says_so(
    few: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.html_report.thumbnails.MAX_PIXELS", 100 * 100 * 10)
    page = page_of(few, tmp_path)
    assert int(sizes_of(data_of(page)).any(1).sum()) == 10
    assert "5 of the largest images have no thumbnail" in page


def test_the_images_may_have_moved(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = results_of(tree, tmp_path / "out", components=2)
    moved = tree.rename(tmp_path / "moved")
    assert main(["report", str(found.root)]) == 0
    page = (found.root / PAGE).read_text()
    assert "There are no thumbnails" in page
    assert data_of(page)["sheets"] == []
    assert main(["report", str(found.root), "--input", str(moved)]) == 0
    assert sizes_of(data_of((found.root / PAGE).read_text())).all()
    assert f"{found.root / PAGE}: " in capsys.readouterr().out
    assert not list(found.root.glob(f".{PAGE}*"))


def test_more_images_than_are_shown_are_thinned_and_the_page_says_so(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mission9.html_report.sample.MAX_SHOWN", 64)
    page = re.sub(r"\s+", " ", page_of(results, tmp_path))
    assert "63 of 193 images are shown" in page
    assert re.search(r"42 of 128 of Training, 21 of 65 of Test\.", page)
    assert len(data_of(page)["paths"]) == 63


class Noise:
    """An engine whose features are numbers by chance, which no page makes small, without a look at any pixel."""

    batch_size = 256

    def __init__(self) -> None:
        self._chance = np.random.default_rng(1)

    def __call__(self, images: Images) -> NDArray[np.float32]:
        return self._chance.normal(size=(len(images), FEATURES)).astype(np.float32)


def read_alone(rows: Iterable[ImageRow], extraction: Extraction) -> Iterator[PreparedBatch]:
    """Images of 64 times 64 pixels, read and not decoded."""
    for row in rows:
        data = open_source(row.root).read(row.path, max_bytes=extraction.max_bytes)
        digest = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        pixels = np.empty((1, 0, 0, 4), np.uint8)
        side = np.array([64], np.int32)
        images = Prepared(side, side, np.array([len(data)]), digest[np.newaxis], pixels, [], 0.0, 0.0)
        yield PreparedBatch([row], images, pixels, {})


@pytest.mark.slow
def test_the_file_stays_small_with_noise_for_images_and_long_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4,000 images that no JPEG makes small, with names as long as a file system takes."""
    folder = tmp_path / "images" / ("label" * 20)
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number in range(4000):
        picture = Image.fromarray(noise.integers(0, 256, (64, 64, 3), np.uint8))
        picture.save(folder / f"{number:04d}{'x' * 240}.bmp")
    monkeypatch.setattr(infer_features, "prepare_ahead", read_alone)
    monkeypatch.setattr(infer_features, "_engine", lambda *_, **__: Noise())
    found = results_of(tmp_path / "images", tmp_path / "out", components=100)
    write_report(found, tmp_path / PAGE)
    page = (tmp_path / PAGE).read_text()
    assert len(page.encode()) <= 12_000_000
    data = data_of(page)
    assert len(data["paths"]) == 4000
    assert (sizes_of(data) == 64).all()


def test_without_plotly_a_line_says_how_to_get_the_report(
    results: Results, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)  # importing it fails
    with pytest.raises(SetupError, match=r"pip install 'mission9\[report\]'"):
        write_report(results, tmp_path / PAGE)
    write_report_if_possible(results.root, None)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [f"no {PAGE}"]
    assert "pip install 'mission9[report]'" in caplog.text
    assert not (results.root / PAGE).exists()


def test_what_takes_long_to_import_is_not_imported(results: Results, tmp_path: Path) -> None:
    write = f"mission9.html_report.write_report(Results.of({str(results.root)!r}), Path({str(tmp_path / PAGE)!r}))"
    loaded = modules_after(
        f"import mission9.html_report; from mission9.results.reader import Results; from pathlib import Path; {write}"
    )
    assert (tmp_path / PAGE).exists()
    assert not loaded & {"plotly", "sklearn", "torch", "openvino", "pyspark"}


def test_no_result_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "there is no result in" in capsys.readouterr().err


def test_a_killed_writer_leaves_the_old_page(results: Results, tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path; from mission9.results.reader import Results;"
        "from mission9 import html_report; import mission9.storage.local.files as files;"
        "files.os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL);"
        "html_report.write_report(Results.of(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(results.root), str(tmp_path / PAGE)], check=False)
    assert done.returncode == -9
    assert (tmp_path / PAGE).read_text() == page
