"""Open every page of a built book in Chromium, on a desktop and a phone, in the light and in the dark.

Its faults: what axe-core calls serious or critical, with everything unfolded; pictures that change with the theme or
are shown smaller than drawn; pages that scroll sideways. Of the page with the explorer also: what its first
screen lacks, too many words in front of the chapters, and a summary that is printed on more than one sheet.

    python -m book.browse [_build/html]

Takes minutes. Prints and exits as `check_html` does.
"""

import io
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from joblib import Parallel, delayed
from PIL import Image

from book.check_html import main, pages_of

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
# With what axe-core looks for in each: a theme changes colours only.
FOUND_ONLY = {"resultTypes": ["violations"]}
THEMES = {"light": FOUND_ONLY, "dark": FOUND_ONLY | {"runOnly": ["color-contrast", "link-in-text-block"]}}
DESKTOP, PHONE = {"width": 1280, "height": 2000}, {"width": 390, "height": 844}
CHECKED = {"exclude": [["dt.sig dl"], [".citation-list"]]}  # how Sphinx writes long signatures and citations
PICTURES = "main figure img:not(.hfc-chart), main [data-part=hfc] canvas"
# The explorer of the landing page draws its pictures later than the page is loaded.
DRAWN = """() => [...document.querySelectorAll("#hfc-explorer [role=status]")]
    .every(one => one.textContent.includes("True class"))"""
UNFOLD = """() => {
    for (const one of document.querySelectorAll("details")) one.open = true;
    for (const one of document.querySelectorAll(".hfc-more")) one.hidden = false;
}"""
# Of the page with the explorer: what stands on the first screen, and what is not counted as words to read.
SCREENS = {
    (1280, 800): "h1, #hfc-explorer canvas, #hfc-explorer .hfc-answer, [name=radius], .tag_hfc-findings li",
    (390, 844): "h1, [name=radius], [data-part=image] canvas, [data-part=hfc] canvas",
}
BELOW = """(places, height) => {
    const all = places.map(one => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()]);
    return all.filter(([, { top, bottom }]) => top < 0 || bottom > height).map(([name]) => name);
}"""
WORDS, CHAPTERS = 350, "#what-each-chapter-asks"
PROSE_ONLY = f"""{CHAPTERS}, {CHAPTERS} ~ section, button, .hfc-unseen,
    .hfc-box :is(select, label, svg, .hfc-pictures) {{ display: none !important }}"""
STILL = "* { transition: none !important; animation: none !important }"  # else colours fade, and what unfolds
# Left, top, right and bottom on the page, without the edge, which lies between two pixels and shows what is behind.
PLACES = """pictures => pictures.filter(one => one.checkVisibility()).map(one => {
    const { left, top, right, bottom } = one.getBoundingClientRect();
    return [left + scrollX + 2, top + scrollY + 2, right + scrollX - 2, bottom + scrollY - 2].map(Math.round);
})"""
SHRUNK = """figures => figures.filter(one => one.checkVisibility())
    .filter(one => one.getBoundingClientRect().width < one.getAttribute("width") - 1).map(one => one.alt)"""
# What reaches beyond the window, but for what lies in a box that scrolls or is cut on purpose.
BEYOND = """() => [...document.querySelectorAll(".bd-article-container *, body > main *")].filter(one => {
    const { left, right } = one.getBoundingClientRect();
    const reach = getComputedStyle(one).overflowX === "visible" ? left + one.scrollWidth : 0;
    if (Math.max(right, reach) <= window.innerWidth + 1) return false;
    if (!one.checkVisibility({ visibilityProperty: true })) return false;
    for (let box = one.parentElement; box && box !== document.body; box = box.parentElement)
        if (getComputedStyle(box).overflowX !== "visible") return false;
    return true;
}).map(one => one.outerHTML.slice(0, 80))"""


def chromium() -> str | None:
    """The path of the Chromium of this machine, None where there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def ready() -> bool:
    """Whether this machine has all that `faults` needs: Chromium, Playwright and axe."""
    return bool(chromium() and find_spec("playwright") and find_spec("axe_playwright_python"))


@contextmanager
def browser() -> Iterator:
    """Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS.split())
        yield opened
        opened.close()


def sheets(pdf: bytes) -> int:
    """The number of sheets of a PDF that Chromium wrote."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def faults(opened, pages: list[Path]) -> list[str]:
    """The faults of some pages in an open `browser`, one line each."""
    return [f"{path.name}{fault}" for path in pages for fault in _faults(opened, path)]


def _faults(opened, path: Path) -> Iterator[str]:
    from axe_playwright_python.sync_playwright import Axe

    page = opened.new_page(viewport=DESKTOP, reduced_motion="reduce")
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN)
    page.add_style_tag(content=STILL)
    if page.locator("#hfc-explorer").count():
        yield from _faults_of_summary(page)
    page.set_viewport_size(DESKTOP)
    page.evaluate(UNFOLD)
    shots = {}
    for theme, rules in THEMES.items():
        page.emulate_media(color_scheme=theme)
        for fault in Axe().run(page, context=CHECKED, options=rules).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                places = ", ".join(node["html"][:80] for node in fault["nodes"][:3])
                yield f", {theme}: {fault['help']}: {places}"
        shots[theme] = _pictures(page)
    page.set_viewport_size(PHONE)
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        for wide in page.evaluate(BEYOND)[-3:]:
            yield f", {theme}: beyond a phone's edge: {wide}"
        if (width := page.evaluate("document.documentElement.scrollWidth")) > PHONE["width"]:
            yield f", {theme}: beyond a phone's edge: a page {width} px wide"
        for small in page.locator("main figure img[width]").evaluate_all(SHRUNK):
            yield f", {theme}: shown smaller than drawn: {small[:80]}"
    page.close()
    if shots["light"] != shots["dark"]:
        yield ": pictures change in the dark"


def _faults_of_summary(page) -> Iterator[str]:
    """The faults of the page with the explorer, as a reader first sees it, reads it and prints it."""
    for (width, height), places in SCREENS.items():
        page.set_viewport_size({"width": width, "height": height})
        for name in page.locator(places).evaluate_all(BELOW, height):
            yield f": not on the first screen of {width} x {height}: {name}"
        sizes = [box["width"] for one in page.locator("#hfc-explorer canvas").all() if (box := one.bounding_box())]
        if width == DESKTOP["width"] and min(sizes) < 220:
            yield f": pictures of {min(sizes):.0f} px"
    for paper in ("A4", "Letter"):
        if (count := sheets(page.pdf(format=paper))) > 1:
            yield f": the summary is printed on {count} sheets of {paper}"
    hidden = page.add_style_tag(content=PROSE_ONLY)
    text = page.locator("article, main").last.inner_text()
    words = sum(any(letter.isalpha() for letter in word) for word in text.split())
    if words > WORDS:
        yield f": {words} words in front of the chapters, of {WORDS}"
    hidden.evaluate("one => one.remove()")


def _pictures(page) -> list[bytes]:
    """The pixels of each picture as shown. One shot of the whole page is faster than a hundred of its pictures."""
    places = page.locator(PICTURES).evaluate_all(PLACES)
    if not places:
        return []
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as shot:
        return [shot.crop(place).tobytes() for place in places]


def faults_of_book(folder: Path) -> list[str]:
    """`faults` of every page of a built book, half of them in each of two browsers."""
    # One that only leads to another would be that one again.
    pages = [path for path in pages_of(folder) if not path.read_text("utf-8").startswith('<meta http-equiv="Refresh"')]
    halves = (delayed(_in_a_browser)(half) for half in (pages[::2], pages[1::2]))
    return list(chain.from_iterable(Parallel(n_jobs=2)(halves)))


def _in_a_browser(pages: list[Path]) -> list[str]:
    with browser() as opened:
        return faults(opened, pages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], faults_of_book))
