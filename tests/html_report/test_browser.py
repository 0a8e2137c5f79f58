"""The page in headless Chromium, from the disk: used by mouse and by keyboard, in light and dark, wide and narrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from mission9.html_report import write_report
from mission9.output.layout import PAGE
from mission9.results.reader import Results
from tests.html_report.conftest import FILES, LABELS, TEST, TRAINING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Locator, Page, ViewportSize

pytestmark = pytest.mark.slow

LIMIT = 120_000  # milliseconds that anything may take, on a machine that is busy
EXPECTED = "Multiple readback operations"  # a hint on speed from Chromium to plotly's 3-D, which does no harm

OURS = ("file:", "data:", "blob:")

Scheme = Literal["light", "dark"]
Opened = Callable[..., "Page"]


@pytest.fixture(scope="module")
def report(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / PAGE
    write_report(results, file)
    return file


@pytest.fixture(scope="module")
def hostile_report(hostile: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("hostile") / PAGE
    write_report(hostile, file)
    return file


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Opens a page; in the end nothing must have gone wrong in it, and nothing been asked of anybody."""
    wrong: list[str] = []
    contexts = []

    def note(is_wrong: bool, what: str) -> None:
        if is_wrong:
            wrong.append(what)

    def refuse(dialog: Dialog) -> None:
        note(True, dialog.message)
        dialog.dismiss()

    def open_page(file: Path, *, width: int = 1280, scheme: Scheme = "light") -> Page:
        size: ViewportSize = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LIMIT)
        page.on("console", lambda message: note(EXPECTED not in message.text, message.text))
        page.on("pageerror", lambda error: note(True, str(error)))
        page.on("dialog", refuse)
        page.on("request", lambda asked: note(not asked.url.startswith(OURS), asked.url))
        page.goto(file.as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def point_at(page: Page, number: int = 0) -> None:
    """Move the mouse over a point until its panel is there: a page that still moves under the mouse hides it again."""
    point = page.locator("#plot path.point").nth(number)
    point.scroll_into_view_if_needed()
    for _ in range(60):
        box = point.bounding_box()
        assert box is not None
        page.mouse.move(0, 0)  # plotly tells of a point once, until the mouse was elsewhere
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(100)
        if page.locator("#tip").is_visible():
            return
    pytest.fail("pointing at a point shows nothing")


def wait_for_points(page: Page, count: int) -> None:
    wait_until(page, f"document.querySelectorAll('#plot .trace:first-child path.point').length === {count}")


def wait_until(page: Page, condition: str) -> None:
    """Playwright's own waiting takes an `eval`, which the page's policy forbids."""
    for _ in range(LIMIT // 100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"it never came to {condition}")


def is_painted(thumbnail: Locator) -> bool:
    """Return True once an image shows something: its pixels are not all the same."""
    from io import BytesIO

    from PIL import Image

    for _ in range(LIMIT // 100):
        pixels = np.asarray(Image.open(BytesIO(thumbnail.screenshot())).convert("RGB")).reshape(-1, 3)
        if len(np.unique(pixels, axis=0)) > 20:
            return True
        thumbnail.page.wait_for_timeout(100)
    return False


def neighbours_of(results: Results, path: str) -> tuple[list[str], np.ndarray]:
    """By plain arithmetic over both splits: the eight nearest, and how far they are."""
    splits = [results.scores(split) for split in ("Training", "Test")]
    paths = np.concatenate([scores.paths for scores in splits])
    pca = np.concatenate([scores.pca for scores in splits]).astype(np.float64)
    far = np.sqrt(((pca - pca[paths == path]) ** 2).sum(1))
    far[paths == path] = np.inf
    order = np.argsort(far)[:8]
    return paths[order].tolist(), far[order]


def shown_neighbours(page: Page) -> tuple[list[str], list[float]]:
    page.wait_for_selector("#chosen:not([hidden])")
    paths = page.locator("#nearest .path").all_text_contents()
    texts = page.locator("#nearest .text").all_text_contents()
    return paths, [float(text.partition("distance ")[2].split(",")[0].split("T")[0]) for text in texts]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_its_colours_are_those_of_the_scheme(opened: Opened, report: Path, width: int, scheme: str) -> None:
    page = opened(report, width=width, scheme=scheme)
    wait_for_points(page, TRAINING + TEST)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for text in page.locator("h2").all():
        text.scroll_into_view_if_needed()
        assert contrast(page, text) >= 4.5
    for text in (page.locator("p.muted").first, page.locator("nav a").first, page.locator(".badge.bad").first):
        assert contrast(page, text) >= 4.5
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.2) == (scheme == "dark")


def luminance(colour: str) -> float:
    """As WCAG defines it, of `rgb(r, g, b)`."""
    parts = np.array([float(part) for part in colour.strip("rgba()").split(",")[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(page: Page, text: Locator) -> float:
    colours = text.evaluate(
        """element => {
            const clear = "rgba(0, 0, 0, 0)";
            let under = element;
            while (getComputedStyle(under).backgroundColor === clear) under = under.parentElement;
            return [getComputedStyle(element).color, getComputedStyle(under).backgroundColor];
        }"""
    )
    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def test_pointing_shows_the_picture_label_and_path(opened: Opened, report: Path) -> None:
    page = opened(report)
    point_at(page)
    tip = page.locator("#tip")
    label, path = tip.locator("b").text_content(), tip.locator(".path").text_content()
    assert path is not None
    assert path.split("/")[1] == label
    assert is_painted(tip.locator(".thumb"))


def test_clicking_shows_the_nearest_neighbours(opened: Opened, report: Path, results: Results) -> None:
    page = opened(report)
    point_at(page, 100)
    path = page.locator("#tip .path").text_content()
    page.mouse.down()
    page.mouse.up()
    paths, far = shown_neighbours(page)
    chosen = page.locator("#subject .path").text_content()
    assert chosen == path
    wanted, distances = neighbours_of(results, chosen or "")
    assert paths == wanted
    assert far == pytest.approx(distances, abs=0.006)
    assert all(is_painted(thumbnail) for thumbnail in page.locator("#nearest .thumb").all()[:2])


def test_switch_filter_and_search_change_what_is_on_the_map(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.get_by_label("Test", exact=True).check()
    wait_for_points(page, TEST)
    assert page.locator("#count").text_content() == f"{TEST} of {TRAINING + TEST} images on the map"
    page.get_by_role("button", name="None").click()
    wait_for_points(page, 0)
    assert page.locator("#results-count").text_content() == "None match."
    page.get_by_role("checkbox", name="Lime").check()
    wait_for_points(page, 5)
    page.get_by_role("searchbox").fill("LEAK")
    wait_for_points(page, 1)
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("all", exact=True).check()
    wait_for_points(page, TRAINING + TEST)


def test_axes_can_be_chosen(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.get_by_label("Component on the axis X").select_option("4")
    wait_until(page, "document.querySelector('#plot .xtitle').textContent.startsWith('PC 5')")
    scores = page.evaluate("[onMap.map((place) => score(place, 4)), Array.from($('plot').data[0].x)]")
    assert scores[0] == scores[1]


def test_the_view_turns_to_three_dimensions_and_back(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.get_by_label("3-D").check()
    page.wait_for_selector("#plot .gl-container canvas", state="attached")
    assert page.get_by_label("Component on the axis Z").is_visible()
    every = TRAINING + TEST
    wait_until(page, f"$('plot').data[0].type === 'scatter3d' && $('plot').data[0].z.length === {every}")
    page.get_by_role("button", name="Zoom in").click()
    wait_until(page, "$('plot').layout.scene.camera?.eye.x < 1")
    page.get_by_label("2-D").check()
    wait_for_points(page, TRAINING + TEST)


def test_zoom_and_reset(opened: Opened, report: Path) -> None:
    page = opened(report)
    span = "(() => { const [a, b] = $('plot')._fullLayout.xaxis.range; return b - a; })()"
    before = page.evaluate(span)
    page.get_by_role("button", name="Zoom in").click()
    wait_until(page, f"{span} < {0.8 * before}")
    page.get_by_role("button", name="Reset").click()
    wait_until(page, f"Math.abs({span} - {before}) < 1e-6")


def test_everything_is_reached_by_keyboard(opened: Opened, report: Path, results: Results) -> None:
    page = opened(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "search":
            break
    page.keyboard.type("Lemon/3_100")
    wait_until(page, "document.querySelectorAll('#results button').length === 2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    path = page.evaluate("document.activeElement.querySelector('.path').textContent")
    page.keyboard.press("Enter")
    paths, _ = shown_neighbours(page)
    assert paths == neighbours_of(results, path)[0]
    assert page.evaluate("document.activeElement.id") == "chosen-title"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the nearest one in its turn
    wait_until(page, f"document.querySelector('#subject .path').textContent === {json.dumps(paths[0])}")


def test_images_at_odds_lead_to_their_neighbours(opened: Opened, report: Path) -> None:
    page = opened(report)
    first = page.locator("#odd button.card").first
    path = first.locator(".path").text_content()
    first.click()
    page.wait_for_selector("#chosen:not([hidden])")
    assert page.locator("#subject .path").text_content() == path
    page.get_by_role("button", name="Back to the list").click()
    assert page.locator("#results").is_visible()


def test_the_matrix_tells_what_is_pointed_at(opened: Opened, report: Path) -> None:
    page = opened(report)
    cell = page.locator("#matrix rect.wrong").first
    cell.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    cell.hover()
    page.mouse.move(0, 0)
    cell.hover()
    text = page.locator("#tip").text_content() or ""
    assert "are nearest to" in text


def test_the_colours_follow_the_scheme_while_the_page_is_open(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.emulate_media(color_scheme="dark")
    wait_until(page, "$('plot')._fullLayout.paper_bgcolor === '#181d23'")
    wait_for_points(page, TRAINING + TEST)


def test_hostile_names_show_as_text_and_run_nothing(opened: Opened, hostile_report: Path) -> None:
    page = opened(hostile_report)
    wait_for_points(page, len(LABELS) * len(FILES))
    assert page.locator("#choices label").all_text_contents() == sorted(LABELS)
    for name in ("<svg onload=alert(2)>", "&lt;b>-->", r"new\nline", r"\u202egnp.exe", "{{7*7}}"):
        page.get_by_role("searchbox").fill(name)
        wait_until(page, "document.querySelectorAll('#results button').length === 3")
        page.locator("#results button").first.click()
        assert name in (page.locator("#subject .path").text_content() or "")
    point_at(page)
    page.locator("#matrix rect.right").first.hover()
    assert "<td><script>alert(3)<.jpg" in page.locator("#images td.path").all_text_contents()[0]
    assert page.locator("script").count() == 3
    assert page.locator("img, iframe, object").count() == 0


def test_a_script_that_got_in_would_not_run(browser: Browser, report: Path, tmp_path: Path) -> None:
    """The policy itself, were escaping ever forgotten."""
    got_in = "<main><img src=x onerror='document.title = 1'><script>document.title = 2</script>"
    (tmp_path / PAGE).write_text(report.read_text().replace("<main>", got_in, 1))
    with browser.new_page() as page:
        heard: list[str] = []
        page.on("console", lambda message: heard.append(message.text))
        page.goto((tmp_path / PAGE).as_uri())
        page.wait_for_selector("body[data-ready]", timeout=LIMIT)
        assert page.title() == "fruits – mission9"  # noqa: RUF001
        assert sum("Content Security Policy" in text for text in heard) >= 2
