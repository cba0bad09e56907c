"""Open every page of a built book in Chromium, on a desktop and a phone, in the light and in the dark.

Its faults: what axe-core calls serious or critical, pictures that change with the theme or are shown smaller than they
were drawn, and pages that scroll sideways.
"""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
THEMES = ("light", "dark")
# The desktop is so high that no figure comes to lie under the bar at the top.
DESKTOP, PHONE = {"width": 1280, "height": 2000}, {"width": 390, "height": 844}
CHECKED = {"exclude": [["dt.sig dl"], [".citation-list"]]}  # how Sphinx writes long signatures and citations
PICTURES = "main figure img, main [data-part=hfc] canvas"
# The explorer of the landing page draws its pictures later than the page is loaded.
DRAWN = """() => [...document.querySelectorAll("#hfc-explorer [role=status]")]
    .every(one => one.textContent.includes("True class"))"""
STILL = "* { transition: none !important }"  # else the colours of the other theme fade out
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
    """Whether this machine has all that `faults` needs."""
    return bool(chromium() and find_spec("playwright") and find_spec("axe_playwright_python"))


@contextmanager
def browser() -> Iterator:
    """Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS.split())
        yield opened
        opened.close()


def faults(opened, pages: list[Path]) -> list[str]:
    """The faults of some pages in an open `browser`, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = []
    for path in pages:
        shots = {}
        page = opened.new_page(viewport=DESKTOP)
        page.goto(path.as_uri())
        page.wait_for_function(DRAWN)
        page.add_style_tag(content=STILL)
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            for fault in Axe().run(page, context=CHECKED).response["violations"]:
                if fault["impact"] in ("serious", "critical"):
                    places = ", ".join(node["html"][:80] for node in fault["nodes"][:3])
                    found.append(f"{path.name}, {theme}: {fault['help']}: {places}")
            shots[theme] = [_inside(one.screenshot()) for one in page.locator(PICTURES).all() if one.is_visible()]
        page.set_viewport_size(PHONE)
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            found += [f"{path.name}, {theme}: beyond a phone's edge: {one}" for one in page.evaluate(BEYOND)[-3:]]
            if (width := page.evaluate("document.documentElement.scrollWidth")) > PHONE["width"]:
                found.append(f"{path.name}, {theme}: beyond a phone's edge: a page {width} px wide")
            small = page.locator("main figure img[width]").evaluate_all(SHRUNK)
            found += [f"{path.name}, {theme}: shown smaller than drawn: {one[:80]}" for one in small]
        page.close()
        if shots["light"] != shots["dark"]:
            found.append(f"{path.name}: pictures change in the dark")
    return found


def faults_of(pages: list[Path]) -> list[str]:
    """`faults` in a browser of their own."""
    with browser() as opened:
        return faults(opened, pages)


def _inside(shot: bytes) -> bytes:
    """The pixels of a picture without its edge, which lies between two pixels and shows what is behind."""
    with Image.open(io.BytesIO(shot)) as image:
        return image.crop((2, 2, image.width - 2, image.height - 2)).tobytes()
