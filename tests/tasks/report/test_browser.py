"""Reports in real headless Chromium: no requests, no errors, everything is drawn and can be read."""

import json
import os
import shutil
import time

import pytest

from vision_transfer.tasks.report.page import write_report
from vision_transfer.tasks.report.task import report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Only the page may send requests here, so the browser's own are switched off.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WIDTHS = (390, 1400)
SCHEMES = ("light", "dark")
MOST_BYTES = 3_000_000
MOST_SECONDS = 10
SMALLEST_FONT = 11
# WCAG 2.2, success criterion 1.4.3.
LEAST_CONTRAST = 4.5

# Every visible text with its size on the screen, its contrast, and where it ends; every image with its size.
MEASURE = """
() => {
  const rgba = text => text.match(/[\\d.]+/g).map(Number);
  const over = (top, below) => {
    const alpha = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(place => top[place] * alpha + below[place] * (1 - alpha));
  };
  const ground = element => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const luminance = colour => {
    const [red, green, blue] = colour.map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement, style = getComputedStyle(element);
    if (!node.textContent.trim() || !element.checkVisibility({contentVisibilityAuto: true})) continue;
    if (["TITLE", "title", "desc", "STYLE"].includes(element.tagName)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (!box.width) continue;
    const inSvg = element instanceof SVGElement, matrix = inSvg ? element.getScreenCTM() : null;
    const scale = inSvg ? Math.hypot(matrix.a, matrix.b) : 1;
    const below = ground(element), colour = over(rgba(inSvg ? style.fill : style.color), below);
    texts.push({text: node.textContent.trim().slice(0, 60), size: parseFloat(style.fontSize) * scale,
                contrast: contrast(colour, below), right: box.right + scrollX,
                scrolls: element.closest(".scroll") !== null});
  }
  const drawn = [...document.querySelectorAll("img, svg")].filter(one => one.checkVisibility()).map(one => {
    const box = one.getBoundingClientRect();
    const name = one.alt || one.textContent.trim().slice(0, 40) || one.outerHTML.slice(0, 80);
    return {name, width: box.width, height: box.height,
            loaded: one.tagName !== "IMG" || (one.complete && one.naturalWidth > 0)};
  });
  const figures = document.querySelectorAll("figure > svg").length;
  return {texts, drawn, figures, wide: document.documentElement.scrollWidth};
}
"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra [browser])")
    found = os.environ.get("VISION_TRANSFER_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("there is no Chromium (apt-get install chromium, or VISION_TRANSFER_CHROMIUM=PATH)")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def measured(browser):
    """Opens a file at a width in a colour scheme, asserts that it requests nothing, and returns `MEASURE`'s result."""

    def measure(file, width, scheme):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.goto(file.as_uri(), wait_until="networkidle")
        found = page.evaluate(MEASURE)
        page.close()
        assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
        assert said == []
        return found

    return measure


def assert_can_be_read(found, width):
    assert found["wide"] <= width
    assert len(found["texts"]) > 50
    for text in found["texts"]:
        assert text["size"] >= SMALLEST_FONT, text
        assert text["contrast"] >= LEAST_CONTRAST, text
        assert text["scrolls"] or text["right"] <= width + 1, text
    for image in found["drawn"]:
        assert image["loaded"] and image["width"] >= 10 and image["height"] >= 10, image


@pytest.mark.parametrize("name", ["digits_run", "photos_run"])
def test_the_report_of_a_run(name, request, measured, caches, screen, tmp_path):
    run = request.getfixturevalue(name)
    file = tmp_path / "report.html"
    began = time.perf_counter()
    write_report(run, caches, screen, file)
    assert time.perf_counter() - began < MOST_SECONDS
    assert file.stat().st_size < MOST_BYTES
    stages = len(json.loads((run / "config.json").read_text())["schedule"])
    for width in WIDTHS:
        for scheme in SCHEMES:
            found = measured(file, width, scheme)
            assert_can_be_read(found, width)
            # of each stage; ROC, precision and recall, risk and coverage; calibration
            assert found["figures"] == 2 * stages + 3 + 1
    # training samples; mistakes and hits, six of each with a heat map
    assert len(found["drawn"]) > 10 + 2 * 6


def test_a_comparison(measured, by_hand, make_run, caches, screen, tmp_path):
    file = tmp_path / "comparison.html"
    report([by_hand.path, make_run("other", seed=1).path], file, caches, screen)
    for width in WIDTHS:
        found = measured(file, width, "light")
        assert_can_be_read(found, width)
        assert found["figures"] == 2


def test_hostile_names_run_nothing(measured, make_run, caches, screen):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    folder = make_run(
        evil.replace("/", "∕"),
        classes=[evil, '"><svg onload=alert(3)>'],
        files=[f"test/{evil} {n}.jpg" for n in range(9)],
    )
    file = write_report(folder.path, caches, screen, folder.path / "r.html")
    found = measured(file, 390, "dark")
    assert_can_be_read(found, 390)
    assert any("<script>alert(1)</script>" in text["text"] for text in found["texts"])
