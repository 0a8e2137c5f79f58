"""Results to report on, and a browser to look at the page with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mission9 import RunConfig, run
from mission9.datasets.demo import VARIETIES, draw, jpeg
from mission9.results.reader import Results
from tests.conftest import InProcessRunner
from tests.support.finished import write_fruits, write_tree

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TRAINING, TEST = 128, 65  # images with features in `results`, of which one is in both

LABELS = ("<script>alert(1)<", '"><img src=x onerror=alert(1)>', "a'b&amp;<b>bold")
FILES = ("new\nline", "bell\x07", "\u202egnp.exe", "<svg onload=alert(2)>", "&lt;b>-->", "{{7*7}}", "${x}", "plain")


def results_of(images: Path, output: Path, components: int = 12) -> Results:
    settings = {"input": str(images), "output": str(output), "weights": "demo", "components": components}
    run(RunConfig(**settings, max_reject_rate=0.5, no_report=True), InProcessRunner())
    return Results.of(output)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Of generated pictures, with an image of Training again in Test under another label, and one that is none."""
    images = tmp_path_factory.mktemp("report") / "fruits"
    write_fruits(images, varieties=len(VARIETIES), training=8, test=4)
    shutil.copy(images / "Training" / "Lemon" / "3_100.jpg", images / "Test" / "Lime" / "leak.jpg")
    (images / "Test" / "Lime" / "no image.jpg").write_bytes(b"<script>")
    return results_of(images, images.parent / "out")


@pytest.fixture(scope="module")
def few(pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Of the images of the fixture `tree`."""
    images = write_tree(tmp_path_factory.mktemp("few") / "images", pictures)
    return results_of(images, images.parent / "out", components=2)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Of images whose labels and names would run, hide or break things if they were not taken for text."""
    images = tmp_path_factory.mktemp("hostile") / "images"
    for number, label in enumerate(LABELS):
        (images / label).mkdir(parents=True)
        for each, name in enumerate(FILES):
            picture = jpeg(draw(VARIETIES[number], stream=3, number=each))
            (images / label / f"{name}.jpg").write_bytes(picture)
    (images / LABELS[0] / "<td><script>alert(3)<.jpg").write_bytes(b"<script>alert(4)</script>")
    return results_of(images, images.parent / "out", components=3)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    software = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=software)
        yield started
        started.close()
